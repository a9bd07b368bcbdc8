"""`dalle probe pca` and `dalle probe prior`: what an embedding holds, and what the prior is for.

Ramesh et al. 2022, sections 4 (figure 7) and 5.1 (figure 8).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..exits import BAD_INPUT, Failure
from ..generate.latent_editor import DecodeRequest, Job, Latent, LatentEditor, cosine, require_readable, similarity_to
from ..generate.latents import explained_variance, project
from ..generate.outputs import Collected
from ..generate.reconstruct import expand_folders
from ..generate.requests import PlannedImage, plan_images, read_requests
from ..generate.sheets import original_cell, result_cells, save_rows
from ..nn.pca import components

DRIVES = ("caption", "text embedding", "prior")


def pca(
    pictures: Sequence[str],
    counts: Sequence[int],
    basis: Callable[[int], Iterable[Tensor]],
    job: Job,
    results: Collected | None = None,
) -> int:
    """Redraw pictures from the first principal components of their embeddings, their noise kept; the exit code.

    counts: of components; a last picture has all. basis: from CLIP's size to batches of pictures, (B, 3, S, S), whose
    embeddings tell the components. Results have `components`, `variance` (the share of it along those), `similarity`
    to the whole embedding, and `psnr`. Raises Failure, RecipeError, PromptError, BadImage, CheckpointError.
    """
    editor = LatentEditor("probe pca", job)
    asked = read_requests(expand_folders(pictures), plain_field="image", file_fields=("image",))
    requests = require_readable(asked)
    many = len(counts) + 1
    items = [
        replace(item, index=many * item.index + i) for item in plan_images(requests, 1, job.seed) for i in range(many)
    ]

    def shots(todo: list[PlannedImage]) -> Iterator[DecodeRequest]:
        size = editor.system.clip.model.visual.size
        told = torch.cat([editor.embed_images(batch) for batch in basis(size)])
        if len(told) < 2:
            raise Failure("components of 1 picture: give at least two, better hundreds", BAD_INPUT)
        known = components(told)
        width = len(known.mean)
        if max(counts) > width:
            raise Failure(f"{max(counts)} components: embeddings have {width} of them", BAD_INPUT)
        for own, found in editor.latents_by_request(todo, many):
            for item in own:
                if not isinstance(found, Latent):
                    yield DecodeRequest(item, error=str(found))
                    continue
                whole = item.index % many == len(counts)
                count = width if whole else counts[item.index % many]
                z = found.z if whole else project(found.z[None], known, count)[0]
                details = {"components": count, "variance": round(explained_variance(known, count), 4)}
                yield DecodeRequest(item, z, found.x, 0.0, "", found.picture, similarity_to(found.z), details)

    failed = [one for one in asked if one.failed]
    code = editor.run(items, shots, {"components": list(counts)}, results, ("components", "variance"), failed)
    if code is not None:
        return code
    if job.sheet:
        rows = []
        for number, request in enumerate(requests):
            own = [editor.results_by_index[i] for i in range(many * number, many * (number + 1))]
            rows.append([original_cell(request), *result_cells(own, lambda one: _counted(one["components"]))])
        save_rows(job.sheet, rows)
    return editor.results.finish()


def _counted(components: int) -> str:
    return f"{components} component{'' if components == 1 else 's'}"


def prior(
    words: Sequence[str], prompts: str | None, count: int, job: Job, results: Collected | None = None,
    wordless: bool = False,
) -> int:  # fmt: skip
    """Draw captions three ways with one decoder and the same noise; returns the exit code.

    By the caption alone, without any embedding; by the caption and its own embedding, as if it were a picture's; by the
    caption and the prior's embedding. wordless: the decoder reads no caption, only the embeddings speak, and the first
    way is by nothing. Results have `drive`, one of DRIVES or "nothing", and `score`, the cosine of the picture's and
    the caption's embeddings. Raises Failure, RecipeError, PromptError, CheckpointError.
    """
    editor = LatentEditor("probe prior", job, inverts=False, imagines=True)
    asked = read_requests(words, prompts)
    requests = [one for one in asked if not one.failed]
    if not requests:
        raise Failure("drive the decoder by what? Give captions, or --prompts FILE", BAD_INPUT)
    drives = ("nothing", *DRIVES[1:]) if wordless else DRIVES
    many = len(drives)
    items = [
        replace(item, index=many * item.index + i)
        for item in plan_images(requests, count, job.seed)
        for i in range(many)
    ]

    def shots(todo: list[PlannedImage]) -> Iterator[DecodeRequest]:
        for start in range(0, len(todo), many * editor.batch_size):
            some = todo[start : start + many * editor.batch_size]
            texts = [item.request.prompt or "" for item in some]
            told = editor.system.embed_texts(texts).float().cpu()
            chosen = [i for i, item in enumerate(some) if drives[item.index % many] == "prior"]
            thought = (
                editor.sample_prior([texts[i] for i in chosen], [some[i].noise_seed for i in chosen])
                if chosen
                else told
            )
            drawn = dict(zip(chosen, thought))
            for i, item in enumerate(some):
                drive = drives[item.index % many]
                z = {"text embedding": told[i], "prior": drawn.get(i)}.get(drive)
                yield DecodeRequest(
                    item, z, text="" if wordless else texts[i], measure=_scored(told[i]), details={"drive": drive}
                )

    failed = [one for one in asked if one.failed]
    settings = {"wordless": True} if wordless else {}
    code = editor.run(items, shots, settings, results, ("drive", "score"), failed)
    if code is not None:
        return code
    if job.sheet:
        rows = [[editor.results_by_index[i + j] for j in range(many)] for i in range(0, len(items), many)]
        save_rows(job.sheet, [result_cells(row, lambda one: f"{one['drive']}: {one['prompt']}") for row in rows])
    return editor.results.finish()


def _scored(told: Tensor) -> Callable[[Tensor], dict[str, float]]:
    return lambda own: {"score": cosine(own, told)}
