"""`dalle interpolate`: the way from one picture to the next along great circles (Ramesh et al. 2022, section 3.2)."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from .. import images
from ..exits import BAD_INPUT, USAGE, Failure
from ..files import check_target
from .latent_editor import DecodeRequest, Job, Latent, LatentEditor
from .latents import slerp
from .outputs import Collected
from .reconstruct import expand_folders
from .requests import GenerationRequest, PlannedImage, read_requests
from .sheets import result_cells, save_rows

Noise = Literal["slerp", "fixed"]
FRAME, END = 90, 600  # milliseconds that a frame of the GIF stays, and the first and the last


@dataclass(frozen=True)
class Stop:
    """A place on the way: a picture, or a text. name: what results call it."""

    request: GenerationRequest

    @property
    def path(self) -> str | None:
        return self.request.fields.get("image")

    @property
    def name(self) -> str:
        return self.path or self.request.prompt or ""


def interpolate(
    ends: Sequence[str],
    frames: int,
    noise: Noise | None,
    paths: int | None,
    gif: str | None,
    job: Job,
    results: Collected | None = None,
) -> int:
    """Draw the way through pictures or texts, `frames` from each to the next, both counted; returns the exit code.

    noise: slerp, between the pictures' own, so that the way begins and ends in them (a text has none and brings a
    random one); fixed, one random noise for all of a path, of which there may be several (`paths`). Results have
    `from`, `to` and `share`, and the prompt of the nearer end. gif: the paths side by side.
    Raises Failure, RecipeError, PromptError, BadImage, CheckpointError.
    """
    asked = _asked(ends)
    stops = [Stop(one) for one in asked if not one.failed]
    if len(stops) < 2:
        raise Failure(f"a way needs two ends, pictures or texts, and was given {len(stops)}", BAD_INPUT)
    noise = noise or ("slerp" if (paths or 1) == 1 else "fixed")
    paths = paths or 1
    if paths > 1 and noise == "slerp" and all(stop.path for stop in stops):
        raise Failure(f"--paths {paths}: between the pictures' own noises there is one; give --noise fixed", USAGE)
    imagines = not all(stop.path for stop in stops)
    editor = LatentEditor("interpolate", job, noise == "slerp", imagines)
    if gif:
        if Path(gif).suffix.lower() != ".gif":
            raise Failure(f"--gif {gif}: give a name that ends in .gif", USAGE)
        check_target(Path(gif), "--gif", job.overwrite or job.skip_existing)
    for stop in stops:
        if stop.path:
            images.open_image(stop.path)
    shares = [*(i + j / (frames - 1) for i in range(len(stops) - 1) for j in range(frames - 1)), len(stops) - 1.0]
    items = [
        PlannedImage(p * len(shares) + i, job.seed or 0, p, _near(stops, share).request)
        for p in range(paths)
        for i, share in enumerate(shares)
    ]

    def shots(todo: list[PlannedImage]) -> Iterator[DecodeRequest]:
        shown = [stop.path for stop in stops if stop.path]
        found = editor.encode_files(shown, noise == "slerp")
        known = [_there(next(found)) if stop.path else None for stop in stops]
        ways: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        for item in todo:
            if item.sample_index not in ways:
                ways = {item.sample_index: _way(editor, stops, known, item)}
            z, x = ways[item.sample_index]
            share = shares[item.index % len(shares)]
            i = min(int(share), len(stops) - 2)
            details = {"from": stops[i].name, "to": stops[i + 1].name, "share": round(share - i, 4)}
            between = slerp(z[i][None], z[i + 1][None], share - i)[0]
            start = slerp(x[i][None], x[i + 1][None], share - i)[0] if noise == "slerp" else None
            yield DecodeRequest(item, between, start, details=details)

    failed = [one for one in asked if one.failed]
    settings = {"ends": [stop.name for stop in stops], "frames": frames, "noise": noise}
    code = editor.run(items, shots, settings, results, ("share",), failed)
    if code is not None:
        return code
    rows = [[editor.results_by_index[p * len(shares) + i] for i in range(len(shares))] for p in range(paths)]
    if job.sheet:
        save_rows(job.sheet, [result_cells(row, lambda one: f"{one['share']:.3g}") for row in rows])
    if gif:
        films = [[images.open_image(one["path"]) for one in row] for row in rows]
        pages = [images.side_by_side(list(together)) if paths > 1 else together[0] for together in zip(*films)]
        times = [END if i % (frames - 1) == 0 else FRAME for i in range(len(pages))]
        images.save_gif([*pages, *pages[-2:0:-1]], gif, [*times, *times[-2:0:-1]])
    return editor.results.finish()


def _asked(ends: Sequence[str]) -> list[GenerationRequest]:
    """Ends in order. A line or word without a field `image` is a picture if it is a file's name, else a text."""
    found = []
    for one in read_requests(expand_folders(ends), file_fields=("image",)):
        word = one.prompt or ""
        if one.failed or "image" in one.fields or not _is_file(word):
            found.append(one)
        else:
            found += read_requests([word], plain_field="image", file_fields=("image",))
    return found


def _there(found: Latent | images.BadImage) -> Latent:
    if isinstance(found, Latent):
        return found
    raise found


def _is_file(word: str) -> bool:
    return os.path.isfile(word) or Path(word).suffix.lower() in images.EXTENSIONS


def _near(stops: Sequence[Stop], share: float) -> Stop:
    return stops[int(share + 0.5)]


def _way(
    editor: LatentEditor, stops: Sequence[Stop], known: Sequence[Latent | None], item: PlannedImage
) -> tuple[list[Tensor], list[Tensor]]:
    """Embeddings and noises at the stops of a path."""
    own = editor.system.noise([item.noise_seed])(editor.system.blank(1))[0]
    texts = [stop.name for stop, latent in zip(stops, known) if latent is None]
    thought = iter(editor.sample_prior(texts, [item.noise_seed] * len(texts)) if texts else ())
    z = [next(thought) if latent is None else latent.z for latent in known]
    x = [own if latent is None or latent.x is None else latent.x for latent in known]
    return z, x
