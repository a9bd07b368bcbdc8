"""`dalle vary`: pictures that share another one's embedding (Ramesh et al. 2022, section 3.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .latent_editor import Job, Latent, Shot, Studio, like, usable
from .outputs import Collected
from .reconstruct import expand
from .requests import Item, gather, plan
from .sheets import cells, original, save_rows


def vary(pictures: Sequence[str], etas: Sequence[float], count: int, job: Job, results: Collected | None = None) -> int:
    """Draw each picture again, `count` times at each eta; returns the exit code.

    From the picture's own noise under its embedding, by DDIM: at eta 0 that gives the picture back, at 1 all that is
    not in the embedding is new. Results have `eta`, `similarity` (cosine of the embeddings) and `psnr` to the picture
    at the decoder's size. Raises Failure, RecipeError, PromptError, BadPicture, CheckpointError.
    """
    studio = Studio("vary", job)
    for eta in etas:
        studio.checked(eta=eta)
    asked = gather(expand(pictures), plain="image", pictures=("image",))
    requests = usable(asked)
    drawn = plan(requests, count, job.seed)
    many = len(etas)
    items = [replace(item, index=many * item.index + i) for item in drawn for i in range(many)]

    def shots(todo: list[Item]) -> Iterator[Shot]:
        for own, found in studio.looked(todo, many * count):
            for item in own:
                eta = etas[item.index % many]
                if isinstance(found, Latent):
                    yield Shot(item, found.z, found.x, eta, "", found.picture, like(found.z), {"eta": eta})
                else:
                    yield Shot(item, error=str(found))

    failed = [one for one in asked if one.failed]
    code = studio.run(items, shots, {"etas": list(etas)}, results, ("eta",), failed)
    if code is not None:
        return code
    if job.sheet:
        rows = []
        wide = many if many > 1 else count
        for start in range(0, len(items), wide):
            own = [studio.finished[i] for i in range(start, start + wide)]
            head = original(requests[start // (many * count)], own)
            rows.append([head, *cells(own, lambda one: f"eta {one['eta']:g}")])
        save_rows(job.sheet, rows)
    return studio.results.finish()
