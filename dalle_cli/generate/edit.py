"""`dalle edit`: pictures turned from what one caption says to what another asks (Ramesh et al. 2022, section 3.3)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from .latent_editor import DecodeRequest, Job, Latent, LatentEditor, caption_of, cosine, require_readable
from .latents import rotate_towards, text_diff
from .outputs import Collected
from .reconstruct import expand_folders
from .requests import GenerationRequest, PlannedImage, PromptError, plan_images, read_requests
from .sheets import original_cell, result_cells, save_rows


def edit(
    pictures: Sequence[str],
    to: str | None,
    described: str | None,
    strengths: Sequence[float],
    job: Job,
    results: Collected | None = None,
) -> int:
    """Turn each picture's embedding by each strength towards the text diff, its noise kept; returns the exit code.

    to: what is asked, else each line's own `to`. described: what the pictures show, else each line's `from` or prompt,
    else what the file says that it was drawn from, else no baseline. Results have `from`, `strength`, `toward` (cosine
    of the new picture and the asked text), `similarity` and `psnr` to the picture; their prompt is what was asked.
    Raises Failure, RecipeError, PromptError, BadImage, CheckpointError.
    """
    editor = LatentEditor("edit", job)
    asked = _all(read_requests(expand_folders(pictures), plain_field="image", file_fields=("image",)), to, described)
    requests = require_readable(asked)
    many = len(strengths)
    items = [
        replace(item, index=many * item.index + i) for item in plan_images(requests, 1, job.seed) for i in range(many)
    ]

    def shots(todo: list[PlannedImage]) -> Iterator[DecodeRequest]:
        for own, found in editor.latents_by_request(todo, many):
            if not isinstance(found, Latent):
                yield from (DecodeRequest(item, error=str(found)) for item in own)
                continue
            try:
                texts = [own[0].request.prompt or "", *filter(None, [own[0].request.fields.get("from")])]
                told = editor.system.embed_texts(texts).float().cpu()
                way = text_diff(told[:1], told[1:] if len(texts) > 1 else None)
            except ValueError as error:
                yield from (DecodeRequest(item, error=str(error)) for item in own)
                continue
            for item in own:
                strength = strengths[item.index % many]
                z = rotate_towards(found.z[None], way, strength)[0]
                measure = partial(_measured, asked=told[0], before=found.z)
                yield DecodeRequest(item, z, found.x, 0.0, "", found.picture, measure, {"strength": strength})

    failed = [one for one in asked if one.failed]
    settings = {"to": to, "from": described, "strengths": list(strengths)}
    code = editor.run(items, shots, settings, results, ("strength", "toward"), failed)
    if code is not None:
        return code
    if job.sheet:
        rows = []
        for number, request in enumerate(requests):
            own = [editor.results_by_index[i] for i in range(many * number, many * (number + 1))]
            rows.append(
                [original_cell(request), *result_cells(own, lambda one: f"{one['strength']:g} {one['prompt']}")]
            )
        save_rows(job.sheet, rows)
    return editor.results.finish()


def _measured(own: Tensor, asked: Tensor, before: Tensor) -> dict[str, Any]:
    return {"toward": cosine(own, asked), "similarity": cosine(own, before)}


def _all(lines: Sequence[GenerationRequest], to: str | None, described: str | None) -> list[GenerationRequest]:
    """What lines mean; one that means nothing is a request that failed, unless all are."""
    found, errors = [], []
    for line in lines:
        try:
            found.append(meant(line, to, described))
        except PromptError as error:
            errors.append(error)
            found.append(replace(line, fields={**line.fields, "error": str(error)}))
    if errors and len(errors) == len(lines):
        raise errors[0]
    return found


def meant(request: GenerationRequest, to: str | None, described: str | None) -> GenerationRequest:
    """A request whose prompt is what is asked and whose `from` is what its picture shows, if anything says so."""
    if request.failed:
        return request
    asked = to if to is not None else request.fields.get("to")
    if not isinstance(asked, str) or not asked.strip():
        raise PromptError('edit to what? Give --to "a winter photo", or lines with "to"')
    shown = described if described is not None else request.fields.get("from", caption_of(request))
    if shown is not None and not isinstance(shown, str):
        raise PromptError(f"'from' must be text, not {str(shown)[:60]}")
    fields = {key: value for key, value in request.fields.items() if key not in ("from", "to")}
    return replace(request, prompt=asked, fields={**fields, **({"from": shown} if shown else {})})
