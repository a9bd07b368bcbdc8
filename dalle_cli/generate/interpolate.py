"""`dalle interpolate`: paths between images and texts along great circles (Ramesh et al. 2022, section 3.2)."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from .. import images
from ..exits import BAD_INPUT, USAGE, Failure
from ..files import check_target
from .image_requests import expand_folders
from .latent_editor import DecodeRequest, Latent, LatentEditor, LatentOptions
from .latents import slerp
from .outputs import Collected
from .requests import GenerationRequest, PlannedImage, read_requests
from .sheets import Row, result_cells, save_rows

Noise = Literal["slerp", "fixed"]
FRAME_MS, END_MS = 90, 600  # milliseconds that a frame of the GIF is shown, and an endpoint


@dataclass(frozen=True)
class Endpoint:
    """An image or a text that the path goes through."""

    request: GenerationRequest

    @property
    def path(self) -> str | None:
        """The file of an image, None for a text."""
        return self.request.fields.get("image")

    @property
    def name(self) -> str:
        """The file or the text, as results name it."""
        return self.path or self.request.prompt or ""


def interpolate(
    words: Sequence[str],
    frames: int,
    noise: Noise | None,
    num_paths: int,
    gif: str | None,
    options: LatentOptions,
    results: Collected | None = None,
) -> int:
    """Generate the path through images or texts, `frames` from each to the next, endpoints included; the exit code.

    noise: slerp interpolates between the images' own noises, so that the path starts and ends in the images (a text
    has a random noise); fixed uses one random noise per path. Default: slerp for one path, fixed for several. Results
    have `from`, `to` and `t`, and the prompt of the nearer endpoint. gif: an animation, the paths side by side.
    Raises Failure, RecipeError, PromptError, BadImage, CheckpointError.
    """
    all_requests = _endpoint_requests(words)
    endpoints = [Endpoint(request) for request in all_requests if not request.failed]
    noise = noise or ("slerp" if num_paths == 1 else "fixed")
    _check(endpoints, noise, num_paths)
    editor = LatentEditor(
        "interpolate", options, noise == "slerp", needs_prior=not all(endpoint.path for endpoint in endpoints)
    )
    if gif:
        if Path(gif).suffix.lower() != ".gif":
            raise Failure(f"--gif {gif}: give a name that ends in .gif", USAGE)
        check_target(Path(gif), "--gif", options.may_replace)
    last = len(endpoints) - 1
    positions = [*(i + j / (frames - 1) for i in range(last) for j in range(frames - 1)), float(last)]
    items = [
        PlannedImage(p * len(positions) + i, options.seed or 0, p, endpoints[int(position + 0.5)].request)
        for p in range(num_paths)
        for i, position in enumerate(positions)
    ]

    def decode_requests(todo: list[PlannedImage]) -> Iterator[DecodeRequest]:
        encoded = editor.encode_files([endpoint.path for endpoint in endpoints if endpoint.path], noise == "slerp")
        latents = [_require_latent(next(encoded)) if endpoint.path else None for endpoint in endpoints]
        paths: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        for item in todo:
            if item.sample_index not in paths:
                paths = {item.sample_index: _path(editor, endpoints, latents, item)}
            z, x = paths[item.sample_index]
            position = positions[item.index % len(positions)]
            i = min(int(position), last - 1)
            t = position - i
            details = {"from": endpoints[i].name, "to": endpoints[i + 1].name, "t": round(t, 4)}
            x_t = slerp(x[i][None], x[i + 1][None], t)[0] if noise == "slerp" else None
            yield DecodeRequest(item, slerp(z[i][None], z[i + 1][None], t)[0], x_t, details=details)

    failed = [request for request in all_requests if request.failed]
    settings = {"endpoints": [endpoint.name for endpoint in endpoints], "frames": frames, "noise": noise}
    code = editor.run(items, decode_requests, settings, results, ("t",), failed)
    if code is not None:
        return code
    rows = [[editor.results_by_index[p * len(positions) + i] for i in range(len(positions))] for p in range(num_paths)]
    if options.sheet:
        save_rows(options.sheet, [Row(result_cells(row, _caption), _title(endpoints)) for row in rows])
    if gif:
        _save_gif(gif, rows, frames)
    return editor.results.finish()


def _check(endpoints: Sequence[Endpoint], noise: Noise, num_paths: int) -> None:
    if len(endpoints) < 2:
        raise Failure(f"a path needs at least two endpoints, images or texts; got {len(endpoints)}", BAD_INPUT)
    if num_paths > 1 and noise == "slerp" and all(endpoint.path for endpoint in endpoints):
        raise Failure(f"--paths {num_paths}: images have one noise each, hence one path; give --noise fixed", USAGE)
    for endpoint in endpoints:
        if endpoint.path:
            images.open_image(endpoint.path)


def _endpoint_requests(words: Sequence[str]) -> list[GenerationRequest]:
    """Return the endpoints in order. A word without a field `image` is an image if it names a file, else a text."""
    requests = []
    for request in read_requests(expand_folders(words), file_fields=("image",)):
        word = request.prompt or ""
        if request.failed or "image" in request.fields or not _names_file(word):
            requests.append(request)
        else:
            requests += read_requests([word], plain_field="image", file_fields=("image",))
    return requests


def _names_file(word: str) -> bool:
    return os.path.isfile(word) or Path(word).suffix.lower() in images.EXTENSIONS


def _require_latent(latent: Latent | images.BadImage) -> Latent:
    if isinstance(latent, Latent):
        return latent
    raise latent


def _path(
    editor: LatentEditor, endpoints: Sequence[Endpoint], latents: Sequence[Latent | None], item: PlannedImage
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the embeddings and the noises at the endpoints of a path."""
    random_x = editor.system.noise([item.noise_seed])(editor.system.blank(1))[0]
    texts = [endpoint.name for endpoint, latent in zip(endpoints, latents) if latent is None]
    sampled = iter(editor.sample_prior(texts, [item.noise_seed] * len(texts)) if texts else ())
    z = [next(sampled) if latent is None else latent.z for latent in latents]
    x = [random_x if latent is None or latent.x is None else latent.x for latent in latents]
    return z, x


def _caption(result: dict[str, Any]) -> str:
    return f"t = {result['t']:.3g}"


def _title(endpoints: Sequence[Endpoint]) -> str:
    return " → ".join(endpoint.name for endpoint in endpoints)


def _save_gif(path: str, rows: Sequence[Sequence[dict[str, Any]]], frames: int) -> None:
    """Write an animation of the paths, side by side, there and back."""
    films = [[images.open_image(result["path"]) for result in row] for row in rows]
    pages = [images.side_by_side(step) for step in zip(*films)]
    times = [END_MS if i % (frames - 1) == 0 else FRAME_MS for i in range(len(pages))]
    images.save_gif([*pages, *pages[-2:0:-1]], path, [*times, *times[-2:0:-1]])
