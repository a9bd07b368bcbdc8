"""`dalle edit`: images edited from one caption towards another (Ramesh et al. 2022, section 3.3)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from .image_requests import caption_of, read_image_requests, readable_requests
from .latent_editor import DecodeRequest, Latent, LatentEditor, LatentOptions, cosine
from .latents import rotate_towards, text_diff
from .outputs import Collected
from .requests import GenerationRequest, PlannedImage, PromptError, plan_images
from .sheets import Row, original_cell, result_cells, save_rows


def edit(
    paths: Sequence[str],
    target: str | None,
    baseline: str | None,
    strengths: Sequence[float],
    options: LatentOptions,
    results: Collected | None = None,
) -> int:
    """Rotate each image's embedding by each strength towards the text diff and keep its noise; returns the exit code.

    target: the caption to edit to, default each line's `to`. baseline: the caption of the images as they are, default
    each line's `from` or prompt, or the prompt in the file's metadata, or none. Results have `from`, `strength`,
    `text_similarity` (cosine of the new image and the target), `similarity` and `psnr` to the image; their prompt is
    the target. Raises Failure, RecipeError, PromptError, BadImage, CheckpointError.
    """
    editor = LatentEditor("edit", options)
    all_requests = _edit_requests(read_image_requests(paths), target, baseline)
    requests = readable_requests(all_requests)
    count = len(strengths)
    planned = plan_images(requests, 1, options.seed)
    items = [replace(item, index=count * item.index + i) for item in planned for i in range(count)]

    def decode_requests(todo: list[PlannedImage]) -> Iterator[DecodeRequest]:
        for group, latent in editor.latents_by_request(todo, count):
            try:
                if not isinstance(latent, Latent):
                    raise latent
                texts = [group[0].request.prompt or "", *filter(None, [group[0].request.fields.get("from")])]
                embeddings = editor.system.embed_texts(texts).float().cpu()
                direction = text_diff(embeddings[:1], embeddings[1:] if len(texts) > 1 else None)
            except ValueError as error:
                yield from (DecodeRequest(item, error=str(error)) for item in group)
                continue
            measure = partial(_measures, target=embeddings[0], original=latent.z)
            for item in group:
                strength = strengths[item.index % count]
                z = rotate_towards(latent.z[None], direction, strength)[0]
                yield DecodeRequest(item, z, latent.x, 0.0, "", latent.image, measure, {"strength": strength})

    failed = [request for request in all_requests if request.failed]
    settings = {"to": target, "from": baseline, "strengths": list(strengths)}
    code = editor.run(items, decode_requests, settings, results, ("strength", "text_similarity"), failed)
    if code is not None:
        return code
    if options.sheet:
        rows = []
        for number, request in enumerate(requests):
            edits = [editor.results_by_index[i] for i in range(count * number, count * (number + 1))]
            cells = result_cells(edits, lambda result: f"strength {result['strength']:g}")
            rows.append(Row([original_cell(request, options.crop), *cells], request.prompt or ""))
        save_rows(options.sheet, rows)
    return editor.results.finish()


def _measures(embedding: Tensor, target: Tensor, original: Tensor) -> dict[str, Any]:
    return {"text_similarity": cosine(embedding, target), "similarity": cosine(embedding, original)}


def _edit_requests(
    requests: Sequence[GenerationRequest], target: str | None, baseline: str | None
) -> list[GenerationRequest]:
    """Return edit requests; one that is invalid becomes a request that failed, unless all are."""
    edits, errors = [], []
    for request in requests:
        try:
            edits.append(edit_request(request, target, baseline))
        except PromptError as error:
            errors.append(error)
            edits.append(replace(request, fields={**request.fields, "error": str(error)}))
    if errors and len(errors) == len(requests):
        raise errors[0]
    return edits


def edit_request(request: GenerationRequest, target: str | None, baseline: str | None) -> GenerationRequest:
    """Return a request whose prompt is the target caption and whose `from` is the baseline caption, if there is one."""
    if request.failed:
        return request
    prompt = target if target is not None else request.fields.get("to")
    if not isinstance(prompt, str) or not prompt.strip():
        raise PromptError('edit to what? Give --to "a winter photo", or lines with "to"')
    caption = baseline if baseline is not None else request.fields.get("from", caption_of(request))
    if caption is not None and not isinstance(caption, str):
        raise PromptError(f"'from' must be text, not {str(caption)[:60]}")
    fields = {key: value for key, value in request.fields.items() if key not in ("from", "to")}
    return replace(request, prompt=prompt, fields={**fields, **({"from": caption} if caption else {})})
