"""`dalle rerank`: score any images against prompts with any CLIP, the best first (Ramesh et al. 2021, section 2.6)."""

from collections.abc import Iterator, Sequence

import torch

from .. import distributed, images
from ..console import Progress
from ..exits import USAGE, Failure
from ..systems import device
from ..systems.scorer import BATCH, DIGITS, Scorer
from .image_requests import read_image_requests
from .outputs import Collected, Results
from .requests import GenerationRequest, read_requests
from .sheets import check_sheet, save_sheet


def rerank(
    paths: Sequence[str],
    prompts: Sequence[str] = (),
    prompts_file: str | None = None,
    models: Sequence[str] = ("starter/clip",),
    top: int | None = None,
    sheet: str | None = None,
    overwrite: bool = False,
    batch_size: int | None = None,
    precision: str = "auto",
    as_json: bool = False,
    quiet: bool = False,
    results: Collected | None = None,
) -> int:
    """Report each image with its score, the best of each prompt first; returns the exit code.

    Images are scored against the given prompts, or each against the prompt of its own line. The score is the cosine
    similarity of CLIP's image and text features, averaged over the models. top: images reported per prompt, default
    all. Raises Failure, PromptError, CheckpointError.
    """
    requests = read_image_requests(paths, field="path")
    prompt_requests = read_requests(prompts, prompts_file)
    texts = [request.prompt or "" for request in prompt_requests if not request.failed]
    if not texts and any(request.prompt is None and not request.failed for request in requests):
        raise Failure('no prompt to score against: give --prompt "an avocado chair", or lines with a prompt', USAGE)
    if sheet:
        check_sheet(sheet, overwrite)
    results = results or Results(as_json, ("score", "path", "prompt"))
    scorer = Scorer(device.choose(precision), models)
    progress = Progress("rerank", len(requests), quiet=quiet)
    failed_lines = [request.line for request in prompt_requests if request.failed]
    scored: dict[str, list[tuple[float, GenerationRequest]]] = {}
    for request, features in _features(requests, scorer, (batch_size or BATCH) * distributed.world_size(), progress):
        if isinstance(features, dict):
            failed_lines.append(features)
            continue
        for text in texts or [request.prompt or ""]:
            scored.setdefault(text, []).append(((scorer.texts([text])[0] @ features).item(), request))
    progress.close()
    for text, pairs in scored.items():
        pairs.sort(key=lambda pair: -pair[0])
        for score, request in pairs[:top]:
            results.report({**request.line, "prompt": text, "score": round(score, DIGITS)})
    for line in failed_lines:
        results.report(line)
    if sheet:
        save_sheet(sheet, results.reported, names=True)
    return results.finish()


def _features(
    requests: Sequence[GenerationRequest], scorer: Scorer, batch_size: int, progress: Progress
) -> Iterator[tuple[GenerationRequest, torch.Tensor | dict]]:
    """Yield each request with the features of its image, or the line that says why there are none."""

    def batch_features(batch: list[GenerationRequest]) -> Iterator[torch.Tensor | dict]:
        inputs: list[torch.Tensor | dict] = []
        for request in batch:
            try:
                inputs.append(request.line if request.failed else scorer.read(request.fields["path"]))
            except images.BadImage as error:
                inputs.append({**request.line, "error": str(error)})
        pixels = [value for value in inputs if isinstance(value, torch.Tensor)]
        rows = iter(scorer.images(torch.stack(pixels), progress.advance) if pixels else ())
        return (value if isinstance(value, dict) else next(rows) for value in inputs)

    for start in range(0, len(requests), batch_size):
        batch = requests[start : start + batch_size]
        yield from zip(batch, distributed.distributed_map(batch, batch_features))
