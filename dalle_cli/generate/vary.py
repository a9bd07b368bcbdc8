"""`dalle vary`: variations of an image, which share its CLIP embedding (Ramesh et al. 2022, section 3.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .image_requests import read_image_requests, readable_requests
from .latent_editor import DecodeRequest, Latent, LatentEditor, LatentOptions, similarity_to
from .outputs import Collected
from .requests import PlannedImage, plan_images
from .sheets import original_cell, result_cells, save_rows


def vary(
    paths: Sequence[str],
    etas: Sequence[float],
    num_images: int,
    options: LatentOptions,
    results: Collected | None = None,
) -> int:
    """Generate `num_images` variations of each image at each eta; returns the exit code.

    DDIM starts from the image's own noise, conditioned on its embedding: eta 0 reconstructs the image, and at eta 1
    everything that the embedding does not hold is new. Results have `eta`, `similarity` (cosine of the embeddings) and
    `psnr` to the image at the decoder's size. Raises Failure, RecipeError, PromptError, BadImage, CheckpointError.
    """
    editor = LatentEditor("vary", options)
    for eta in etas:
        editor.check_options(eta=eta)
    all_requests = read_image_requests(paths)
    requests = readable_requests(all_requests)
    planned = plan_images(requests, num_images, options.seed)
    items = [replace(item, index=len(etas) * item.index + i) for item in planned for i in range(len(etas))]
    per_request = len(etas) * num_images

    def decode_requests(todo: list[PlannedImage]) -> Iterator[DecodeRequest]:
        for group, latent in editor.latents_by_request(todo, per_request):
            for item in group:
                eta = etas[item.index % len(etas)]
                if isinstance(latent, Latent):
                    measure = similarity_to(latent.z)
                    yield DecodeRequest(item, latent.z, latent.x, eta, "", latent.image, measure, {"eta": eta})
                else:
                    yield DecodeRequest(item, error=str(latent))

    failed = [request for request in all_requests if request.failed]
    code = editor.run(items, decode_requests, {"etas": list(etas)}, results, ("eta",), failed)
    if code is not None:
        return code
    if options.sheet:
        rows = []
        length = len(etas) if len(etas) > 1 else num_images
        for start in range(0, len(items), length):
            variations = [editor.results_by_index[i] for i in range(start, start + length)]
            original = original_cell(requests[start // per_request], options.crop)
            rows.append([original, *result_cells(variations, lambda result: f"eta {result['eta']:g}")])
        save_rows(options.sheet, rows)
    return editor.results.finish()
