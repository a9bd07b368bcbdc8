"""`dalle vary`: pictures that share another one's embedding (Ramesh et al. 2022, section 3.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .latent_editor import DecodeRequest, Job, Latent, LatentEditor, require_readable, similarity_to
from .outputs import Collected
from .reconstruct import expand_folders
from .requests import PlannedImage, plan_images, read_requests
from .sheets import original_cell, result_cells, save_rows


def vary(pictures: Sequence[str], etas: Sequence[float], count: int, job: Job, results: Collected | None = None) -> int:
    """Draw each picture again, `count` times at each eta; returns the exit code.

    From the picture's own noise under its embedding, by DDIM: at eta 0 that gives the picture back, at 1 all that is
    not in the embedding is new. Results have `eta`, `similarity` (cosine of the embeddings) and `psnr` to the picture
    at the decoder's size. Raises Failure, RecipeError, PromptError, BadImage, CheckpointError.
    """
    editor = LatentEditor("vary", job)
    for eta in etas:
        editor.checked(eta=eta)
    asked = read_requests(expand_folders(pictures), plain_field="image", file_fields=("image",))
    requests = require_readable(asked)
    drawn = plan_images(requests, count, job.seed)
    many = len(etas)
    items = [replace(item, index=many * item.index + i) for item in drawn for i in range(many)]

    def shots(todo: list[PlannedImage]) -> Iterator[DecodeRequest]:
        for own, found in editor.latents_by_request(todo, many * count):
            for item in own:
                eta = etas[item.index % many]
                if isinstance(found, Latent):
                    yield DecodeRequest(
                        item, found.z, found.x, eta, "", found.picture, similarity_to(found.z), {"eta": eta}
                    )
                else:
                    yield DecodeRequest(item, error=str(found))

    failed = [one for one in asked if one.failed]
    code = editor.run(items, shots, {"etas": list(etas)}, results, ("eta",), failed)
    if code is not None:
        return code
    if job.sheet:
        rows = []
        wide = many if many > 1 else count
        for start in range(0, len(items), wide):
            own = [editor.results_by_index[i] for i in range(start, start + wide)]
            head = original_cell(requests[start // (many * count)])
            rows.append([head, *result_cells(own, lambda one: f"eta {one['eta']:g}")])
        save_rows(job.sheet, rows)
    return editor.results.finish()
