"""What the principal components of an embedding hold (Ramesh et al. 2022, section 4, figure 7)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any

import torch
from torch import Tensor

from ... import images as image_files
from ...data.scenes.objects import load_object_set
from ...exits import BAD_INPUT, Failure
from ...generate.image_requests import expand_folders, read_image_requests, readable_requests
from ...generate.latent_editor import DecodeRequest, Latent, LatentEditor, similarity_to
from ...generate.latents import explained_variance, project
from ...generate.outputs import Collected
from ...generate.requests import PlannedImage, plan_images
from ...generate.sheets import original_cell, result_cells
from ...nn.pca import principal_components as components_of
from .. import samples
from ..generated import Generation
from ..protocol import Option, Result, Rows

EXAMPLES = ("dalle probe pca dog.png --components 1,2,5,10,20 --sheet pca.png",)
COLUMNS = ("index", "seed", "skipped", "components", "variance", "similarity", "psnr", "path", "prompt")
BATCH = 256  # images embedded at once to find components


@dataclass(frozen=True)
class ComponentImages(Result):
    """Results of the generated images: `components`, `variance` (the fraction explained), `similarity`, `psnr`."""

    images: list[dict[str, Any]]
    rows: Rows
    exit_code: int
    sheet = True

    def to_json(self) -> list[dict[str, Any]]:
        return []  # printed image by image

    def table(self) -> list[str]:
        return []


def pca(
    images: Annotated[
        list[str], Option("Image files or folders; - reads JSON lines.", metavar="IMAGE...", positional=True)
    ],
    components: Annotated[
        Sequence[int], Option("Numbers of components to reconstruct from.", 1, 1_000_000, panel="Sampling")
    ] = (1, 2, 5, 10, 20),
    pca_images: Annotated[
        str | None, Option("Folder of images to compute the components from. Default: scenes.", metavar="FOLDER")
    ] = None,
    num_scenes: Annotated[int, Option("Unseen scenes to compute the components from.", 2)] = 1000,
    objects: str = "everyday",
    recipe: Annotated[str, Option("System recipe of type unclip.", metavar="NAME|PATH", panel="Model")] = "unclip",
    options: Generation = Generation(),  # noqa: B008  (frozen)
    results: Collected | None = None,
) -> ComponentImages | None:
    """Reconstruct images from more and more principal components of their CLIP embeddings, with the same noise.

    results: where each image is reported when it is finished. The last image of each row has all components. Returns
    None for a dry run. Raises Failure, RecipeError, PromptError, BadImage, CheckpointError.
    """  # fmt: skip
    editor, results = LatentEditor("probe pca", options.latent_options(recipe)), results or Collected()
    paths = expand_folders([pca_images]) if pca_images else None
    if not paths:
        load_object_set(objects)
    lines = read_image_requests(images)
    requests, width = readable_requests(lines), len(components) + 1
    items = [
        replace(item, index=width * item.index + i)
        for item in plan_images(requests, 1, options.seed)
        for i in range(width)
    ]

    def decode_requests(todo: list[PlannedImage]) -> Iterator[DecodeRequest]:
        size = editor.system.clip.model.visual.size
        batches = _file_batches(paths, size) if paths else _scene_batches(num_scenes, size, objects)
        basis = _basis(torch.cat([editor.embed_images(batch) for batch in batches]), max(components))
        total = len(basis.mean)
        for group, latent in editor.latents_by_request(todo, width):
            for item in group:
                if not isinstance(latent, Latent):
                    yield DecodeRequest(item, error=str(latent))
                    continue
                complete = item.index % width == len(components)
                count = total if complete else components[item.index % width]
                z = latent.z if complete else project(latent.z[None], basis, count)[0]
                details = {"components": count, "variance": round(explained_variance(basis, count), 4)}
                yield DecodeRequest(item, z, latent.x, 0.0, "", latent.image, similarity_to(latent.z), details)

    failed = [line for line in lines if line.failed]
    columns = ("components", "variance")
    if editor.run(items, decode_requests, {"components": list(components)}, results, columns, failed) is not None:
        return None
    rows = []
    for number, request in enumerate(requests):
        row = [editor.results_by_index[i] for i in range(width * number, width * (number + 1))]
        rows.append([original_cell(request), *result_cells(row, _caption)])
    return ComponentImages(results.reported, rows, results.finish())


def _basis(embeddings: Tensor, max_components: int) -> Any:
    """Return the principal components of embeddings, (N, e). Raises Failure for too few of either."""
    if len(embeddings) < 2:
        raise Failure("principal components of 1 image: give at least two, better hundreds", BAD_INPUT)
    basis = components_of(embeddings)
    if max_components > len(basis.mean):
        raise Failure(f"--components {max_components}: the embeddings have {len(basis.mean)} dimensions", BAD_INPUT)
    return basis


def _scene_batches(count: int, size: int, objects: str) -> Iterator[Tensor]:
    """Yield batches of unseen scenes, (B, 3, size, size)."""
    scenes = samples.unseen(count, size, objects)
    while batch := [sample.image for sample in islice(scenes, BATCH)]:
        yield samples.batch(batch)


def _file_batches(paths: Sequence[str], size: int) -> Iterator[Tensor]:
    """Yield batches of image files, (B, 3, size, size)."""
    for start in range(0, len(paths), BATCH):
        squares = [image_files.square(image_files.open_image(path), size) for path in paths[start : start + BATCH]]
        yield torch.stack([image_files.to_tensor(square) for square in squares])


def _caption(result: dict[str, Any]) -> str:
    return f"{result['components']} component{'' if result['components'] == 1 else 's'}"
