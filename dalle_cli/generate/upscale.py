"""`dalle upscale`: images enlarged by a diffusion upsampler (Nichol et al. 2022, section 4)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from .. import checkpoint, distributed, images
from ..console import Progress
from ..exits import DONE
from ..models.conditions import LowResCondition
from ..nn.noise import noise_source
from ..recipe import type_of
from ..registry import RecipeError
from ..systems import device
from ..systems.glide import Diffusion, enlarge, load
from ..tasks.decoder import DecoderTask
from .image_requests import caption_of, read_image_requests
from .metadata import Origin, digest
from .outputs import Collected, Outputs, Results
from .requests import PlannedImage, plan_images
from .sample import describe, load_system, prepare
from .sheets import check_sheet, save_sheet

MAX_ENLARGEMENT = 4  # side of the largest output in sides of the images that the upsampler was trained on


def upscale(
    paths: Sequence[str],
    prompt: str | None = None,
    recipe: str = "glide",
    options: dict[str, Any] | None = None,
    seed: int | None = None,
    out: str = "out",
    sheet: str | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    precision: str = "auto",
    offload: bool = False,
    as_json: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    results: Collected | None = None,
) -> int:
    """Enlarge images of any shape; returns the exit code. An image that cannot be enlarged is a result with `error`.

    prompt: caption of all images; default each line's own, or the prompt in the file's metadata, or none. options: of
    the upsampler, None where not given. Raises Failure, RecipeError, PromptError, CheckpointError.
    """
    requests = [
        request if request.failed else replace(request, prompt=caption_of(request) or "" if prompt is None else prompt)
        for request in read_image_requests(paths)
    ]
    name, settings = find_upsampler(recipe, options or {})
    if dry_run:
        describe(recipe, {"parts": {"upsampler": name}}, settings, f"{len(requests)} files in {out}")
        return DONE
    if sheet:
        check_sheet(sheet, overwrite or skip_existing)
    outputs = Outputs(out, plan_images(requests, seed=seed), overwrite, skip_existing)
    results = results or Results(as_json)
    for result in outputs.skipped:
        results.report(result)
    target = device.choose(precision, offload)
    task = load(target, name)
    _low_res_condition(task, name)
    origin = Origin("upscale", recipe, asdict(settings), {"upsampler": digest(checkpoint.resolve(name))})
    progress = Progress("upscale", -(-len(outputs.todo) // distributed.world_size()), quiet=quiet)

    def upscale_items(items: list[PlannedImage]) -> Iterator[Image.Image | str]:
        return (_upscaled(target, task, item, settings) for item in items)

    for start in range(0, len(outputs.todo), distributed.world_size()):
        batch = outputs.todo[start : start + distributed.world_size()]
        for item, upscaled in zip(batch, distributed.distributed_map(batch, upscale_items)):
            if isinstance(upscaled, str):
                results.report(outputs.failed(item, upscaled))
            else:
                results.report(outputs.save(item, upscaled, origin))
        progress.advance()
    progress.close()
    if sheet:
        save_sheet(sheet, results.reported)
    return results.finish()


def _upscaled(target: device.Device, task: DecoderTask, item: PlannedImage, options: Diffusion) -> Image.Image | str:
    """Return the enlarged image of a request, or the reason why there is none."""
    if item.request.failed:
        return item.request.fields["error"]
    path = item.request.fields["image"]
    try:
        image = images.open_image(path)
    except images.BadImage as error:
        return str(error)
    max_side = MAX_ENLARGEMENT * task.size // task.condition(LowResCondition).factor
    if max(image.size) > max_side:
        return f"{path}: {image.width}x{image.height} px; this upsampler takes at most {max_side} px a side"
    pixels = images.to_tensor(image)
    return images.to_pil(_enlarge(target, task, item.request.prompt or "", pixels, item.noise_seed, options))


def _enlarge(
    target: device.Device, task: DecoderTask, text: str, pixels: torch.Tensor, seed: int, options: Diffusion
) -> torch.Tensor:
    """Enlarge (3, h, w) to (3, factor h, factor w), padded with its border to a multiple that the network divides."""
    factor = task.condition(LowResCondition).factor
    multiple = task.model.factor // math.gcd(task.model.factor, factor)
    height, width = pixels.shape[1:]
    padded = F.pad(pixels[None], (0, -width % multiple, 0, -height % multiple), mode="replicate")
    large = enlarge(target, task, [text], padded, noise_source(torch.tensor([seed])), options)
    return large[0, :, : factor * height, : factor * width].float().cpu()


def upsampler_sizes(name: str) -> tuple[int, int]:
    """Return the side in pixels of the images that an upsampler was trained on, and the factor it enlarges by.

    Raises RecipeError for a model that is not an upsampler, CheckpointError.
    """
    task: Any = checkpoint.load_meta(name)
    return task.size, _low_res_condition(task, name).factor


def _low_res_condition(task: DecoderTask, name: str) -> LowResCondition:
    condition = task.condition(LowResCondition)
    if condition is None:
        raise RecipeError(f"{name} generates images and enlarges none; name an upsampler")
    return condition


def find_upsampler(recipe: str, options: dict[str, Any]) -> tuple[str, Diffusion]:
    """Return the upsampler's checkpoint, of a system or by itself, and its options. Raises RecipeError."""
    system = load_system(recipe)
    if type_of(system, "system") not in ("glide", "unclip"):
        raise RecipeError(
            f"{recipe}: this system has no upsampler; name one of type glide or unclip, or an upsampler's checkpoint"
        )
    given = {f"up_{key}": value for key, value in options.items() if value is not None}
    _, parts, settings = prepare(system, given)
    return str(parts.get("upsampler") or parts["decoder"]), settings
