"""`dalle probe pca` and `dalle probe prior`: what an embedding holds, and what the prior is for.

Ramesh et al. 2022, sections 4 (figure 7) and 5.1 (figure 8).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..exits import BAD_INPUT, Failure
from ..generate.latent_editor import Job, Latent, Shot, Studio, cosine, like, usable
from ..generate.latents import reduced, share
from ..generate.outputs import Collected
from ..generate.reconstruct import expand
from ..generate.requests import Item, gather, plan
from ..generate.sheets import cells, original, save_rows
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
    to the whole embedding, and `psnr`. Raises Failure, RecipeError, PromptError, BadPicture, CheckpointError.
    """
    studio = Studio("probe pca", job)
    asked = gather(expand(pictures), plain="image", pictures=("image",))
    requests = usable(asked)
    many = len(counts) + 1
    items = [replace(item, index=many * item.index + i) for item in plan(requests, 1, job.seed) for i in range(many)]

    def shots(todo: list[Item]) -> Iterator[Shot]:
        size = studio.system.clip.model.visual.size
        told = torch.cat([studio.embedded(batch) for batch in basis(size)])
        if len(told) < 2:
            raise Failure("components of 1 picture: give at least two, better hundreds", BAD_INPUT)
        known = components(told)
        width = len(known.mean)
        if max(counts) > width:
            raise Failure(f"{max(counts)} components: embeddings have {width} of them", BAD_INPUT)
        for own, found in studio.looked(todo, many):
            for item in own:
                if not isinstance(found, Latent):
                    yield Shot(item, error=str(found))
                    continue
                whole = item.index % many == len(counts)
                count = width if whole else counts[item.index % many]
                z = found.z if whole else reduced(found.z[None], known, count)[0]
                details = {"components": count, "variance": round(share(known, count), 4)}
                yield Shot(item, z, found.x, 0.0, "", found.picture, like(found.z), details)

    failed = [one for one in asked if one.failed]
    code = studio.run(items, shots, {"components": list(counts)}, results, ("components", "variance"), failed)
    if code is not None:
        return code
    if job.sheet:
        rows = []
        for number, request in enumerate(requests):
            own = [studio.finished[i] for i in range(many * number, many * (number + 1))]
            rows.append([original(request, own), *cells(own, lambda one: _counted(one["components"]))])
        save_rows(job.sheet, rows)
    return studio.results.finish()


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
    studio = Studio("probe prior", job, inverts=False, imagines=True)
    asked = gather(words, prompts)
    requests = [one for one in asked if not one.failed]
    if not requests:
        raise Failure("drive the decoder by what? Give captions, or --prompts FILE", BAD_INPUT)
    drives = ("nothing", *DRIVES[1:]) if wordless else DRIVES
    many = len(drives)
    items = [
        replace(item, index=many * item.index + i) for item in plan(requests, count, job.seed) for i in range(many)
    ]

    def shots(todo: list[Item]) -> Iterator[Shot]:
        for start in range(0, len(todo), many * studio.together):
            some = todo[start : start + many * studio.together]
            texts = [item.request.prompt or "" for item in some]
            told = studio.system.embed_texts(texts).float().cpu()
            chosen = [i for i, item in enumerate(some) if drives[item.index % many] == "prior"]
            thought = studio.imagined([texts[i] for i in chosen], [some[i].noise for i in chosen]) if chosen else told
            drawn = dict(zip(chosen, thought))
            for i, item in enumerate(some):
                drive = drives[item.index % many]
                z = {"text embedding": told[i], "prior": drawn.get(i)}.get(drive)
                yield Shot(
                    item, z, text="" if wordless else texts[i], measure=_scored(told[i]), details={"drive": drive}
                )

    failed = [one for one in asked if one.failed]
    settings = {"wordless": True} if wordless else {}
    code = studio.run(items, shots, settings, results, ("drive", "score"), failed)
    if code is not None:
        return code
    if job.sheet:
        rows = [[studio.finished[i + j] for j in range(many)] for i in range(0, len(items), many)]
        save_rows(job.sheet, [cells(row, lambda one: f"{one['drive']}: {one['prompt']}") for row in rows])
    return studio.results.finish()


def _scored(told: Tensor) -> Callable[[Tensor], dict[str, float]]:
    return lambda own: {"score": cosine(own, told)}
