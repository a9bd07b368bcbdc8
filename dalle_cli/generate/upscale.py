"""`dalle upscale`: pictures enlarged by a diffusion upsampler."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from .. import checkpoint, distributed, images
from ..console import Progress
from ..models.conditions import LowResCondition
from ..nn.noise import stream
from ..recipe import type_of
from ..registry import RecipeError
from ..systems import device
from ..systems.glide import Diffusion, enlarge, load
from ..tasks.decoder import DecoderTask
from .latent_editor import caption_of
from .metadata import Origin, digest
from .outputs import Collected, Outputs, Results
from .reconstruct import expand_folders
from .requests import PlannedImage, plan_images, read_requests
from .sample import load_system, prepare
from .sheets import check_sheet, save_sheet

LARGEST = 4  # times the side that an upsampler was trained on


def upscale(
    pictures: Sequence[str], prompt: str | None, recipe: str, options: dict[str, Any], seed: int | None, out: str,
    sheet: str | None, overwrite: bool, skip_existing: bool, as_json: bool, quiet: bool, precision: str,
    offload: bool = False, results: Collected | None = None,
) -> int:  # fmt: skip
    """Enlarge pictures of any shape; returns the exit code. A picture that cannot be read is a result with `error`.

    prompt: what all of them show; default: each line's own, else what its file says that it was drawn from, else
    nothing. Raises Failure, RecipeError, PromptError, CheckpointError.
    """
    asked = read_requests(expand_folders(pictures), plain_field="image", file_fields=("image",))
    requests = [
        one if one.failed else replace(one, prompt=caption_of(one) or "" if prompt is None else prompt) for one in asked
    ]
    name, settings = upsampler(recipe, options)
    if sheet:
        check_sheet(sheet, overwrite or skip_existing)
    outputs = Outputs(out, plan_images(requests, seed=seed), overwrite, skip_existing)
    results = results or Results(as_json)
    for result in outputs.skipped:
        results.report(result)
    place = device.choose(precision, offload)
    task = load(place, name)
    condition = _condition(task, name)
    origin = Origin("upscale", recipe, asdict(settings), {"upsampler": digest(checkpoint.resolve(name))})
    progress = Progress("upscale", -(-len(outputs.todo) // distributed.world_size()), quiet=quiet)
    most = LARGEST * task.size // condition.factor

    def enlarged(items: list[PlannedImage]) -> Iterator[Image.Image | str]:
        """The large picture of each item, or why there is none."""
        for item in items:
            if item.request.failed:
                yield item.request.fields["error"]
                continue
            path = item.request.fields["image"]
            try:
                picture = images.to_tensor(images.open_image(path))
            except images.BadImage as error:
                yield str(error)
                continue
            height, width = picture.shape[1:]
            if max(height, width) > most:
                yield f"{path}: {width}x{height} px; at most {most} a side"
                continue
            large = _enlarge(place, task, item.request.prompt or "", picture, item.noise_seed, settings)
            yield images.to_pil(large)

    for start in range(0, len(outputs.todo), distributed.world_size()):
        group = outputs.todo[start : start + distributed.world_size()]
        for item, found in zip(group, distributed.distributed_map(group, enlarged)):
            if isinstance(found, str):
                results.report(outputs.failed(item, found))
            else:
                results.report(outputs.save(item, found, origin))
        progress.advance()
    progress.close()
    if sheet:
        save_sheet(sheet, results.reported)
    return results.finish()


def _enlarge(
    place: device.Device, task: DecoderTask, text: str, picture: torch.Tensor, seed: int, options: Diffusion
) -> torch.Tensor:
    """(3, h, w) to (3, f h, f w); the border is repeated where the network's levels ask for more."""
    factor = task.condition(LowResCondition).factor
    unit = task.model.factor // math.gcd(task.model.factor, factor)
    height, width = picture.shape[1:]
    padded = F.pad(picture[None], (0, -width % unit, 0, -height % unit), mode="replicate")
    large = enlarge(place, task, [text], padded, stream(torch.tensor([seed])), options)
    return large[0, :, : factor * height, : factor * width].float().cpu()


def sizes(name: str) -> tuple[int, int]:
    """The side of the pictures that an upsampler was trained on, and how many times larger than the given that is.

    Raises RecipeError for what enlarges nothing, CheckpointError.
    """
    task: Any = checkpoint.shapes(name)
    return task.size, _condition(task, name).factor


def _condition(task: DecoderTask, name: str) -> LowResCondition:
    found = task.condition(LowResCondition)
    if found is None:
        raise RecipeError(f"{name} draws pictures and enlarges none; name an upsampler")
    return found


def upsampler(recipe: str, options: dict[str, Any]) -> tuple[str, Diffusion]:
    """The checkpoint that enlarges, of a system or by itself, and how it does. Raises RecipeError, CheckpointError."""
    system = load_system(recipe)
    if type_of(system, "system") not in ("glide", "unclip"):
        raise RecipeError(
            f"{recipe}: this system has no upsampler; give one of type glide or unclip, or an upsampler's checkpoint"
        )
    given = {f"up_{key}": value for key, value in options.items() if value is not None}
    _, parts, settings = prepare(system, given)
    return str(parts.get("upsampler") or parts["decoder"]), settings
