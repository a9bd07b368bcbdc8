"""`dalle rerank`: any pictures against prompts, scored by any CLIP."""

from collections.abc import Iterator, Sequence

import torch

from .. import distributed, images
from ..console import Progress
from ..exits import USAGE, Failure
from ..systems import device
from ..systems.scorer import BATCH, DIGITS, Scorer
from .outputs import Results
from .reconstruct import expand_folders
from .requests import GenerationRequest, read_requests
from .sheets import check_sheet, save_sheet


def rerank(
    pictures: Sequence[str], prompt: Sequence[str], prompts: str | None, models: Sequence[str], top: int | None,
    sheet: str | None, overwrite: bool, as_json: bool, quiet: bool, batch_size: int | None, precision: str,
) -> int:  # fmt: skip
    """Print every picture with its score, the best of each prompt first; returns the exit code.

    A picture is scored against the prompts given, or against its own line's. score: the cosine of CLIP's features,
    or the mean of several models'.
    """
    requests = read_requests(expand_folders(pictures), plain_field="path", file_fields=("path",))
    texts = read_requests(prompt, prompts)
    wanted = [one.prompt or "" for one in texts if not one.failed]
    if not wanted and any(one.prompt is None and not one.failed for one in requests):
        raise Failure('score against what? Give --prompt "an avocado chair", or lines that carry a prompt', USAGE)
    if sheet:
        check_sheet(sheet, overwrite)
    results = Results(as_json, ("score", "path", "prompt"))
    scorer = Scorer(device.choose(precision), models)
    progress = Progress("rerank", len(requests), quiet=quiet)
    scored: dict[str, list[tuple[float, GenerationRequest]]] = {}
    failed = [one.line for one in texts if one.failed]

    def features(own: list[GenerationRequest]) -> Iterator[torch.Tensor | dict]:
        """The features of each request's picture, or the line that says why there are none."""
        found: list[torch.Tensor | dict] = []
        for one in own:
            try:
                found.append(one.line if one.failed else scorer.read(one.fields["path"]))
            except images.BadImage as error:
                found.append({**one.line, "error": str(error)})
        batch = [one for one in found if isinstance(one, torch.Tensor)]
        rows = iter(scorer.pictures(torch.stack(batch), progress.advance) if batch else ())
        return (one if isinstance(one, dict) else next(rows) for one in found)

    many = (batch_size or BATCH) * distributed.world_size()
    for start in range(0, len(requests), many):
        some = requests[start : start + many]
        for one, feature in zip(some, distributed.distributed_map(some, features)):
            if isinstance(feature, dict):
                failed.append(feature)
                continue
            for text in wanted or [one.prompt or ""]:
                scored.setdefault(text, []).append(((scorer.texts([text])[0] @ feature).item(), one))
    progress.close()
    for text, found in scored.items():
        found.sort(key=lambda pair: -pair[0])
        for score, one in found[:top]:
            results.report({**one.line, "prompt": text, "score": round(score, DIGITS)})
    for line in failed:
        results.report(line)
    if sheet:
        save_sheet(sheet, results.reported, names=True)
    return results.finish()
