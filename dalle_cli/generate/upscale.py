"""`dalle upscale`: images enlarged by a diffusion upsampler (Nichol et al. 2022, section 4)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from .. import checkpoint, distributed, images
from ..console import Progress
from ..exits import DONE
from ..nn.noise import noise_source
from ..registry import RecipeError
from ..systems import device
from ..systems.diffusion import DiffusionOptions, load_decoder, upsample
from ..systems.loading import ResolvedSystem, resolve, system_class
from ..tasks.decoder import DecoderTask
from .image_requests import caption_of, read_image_requests
from .metadata import Origin, digest
from .options import GenerationOptions, print_dry_run
from .outputs import Collected, Outputs, Results
from .requests import PlannedImage, plan_images
from .sheets import check_sheet, save_sheet

DEFAULTS = GenerationOptions()
DEFAULT_RECIPE = "glide"
MAX_ENLARGEMENT = 4  # side of the largest output in sides of the images that the upsampler was trained on


def upscale(
    paths: Sequence[str],
    prompt: str | None = None,
    options: GenerationOptions = DEFAULTS,
    results: Collected | None = None,
) -> int:
    """Enlarge images of any shape; returns the exit code. An image that cannot be enlarged is a result with `error`.

    prompt: caption of all images; default each line's own, or the prompt in the file's metadata, or none. Raises
    Failure, RecipeError, PromptError, CheckpointError.
    """
    requests = [
        request if request.failed else replace(request, prompt=caption_of(request) or "" if prompt is None else prompt)
        for request in read_image_requests(paths)
    ]
    name, resolved = find_upsampler(options.recipe or DEFAULT_RECIPE, options.sampling)
    if options.dry_run:
        print_dry_run(resolved, f"{len(requests)} files in {options.out}")
        return DONE
    if options.sheet:
        check_sheet(options.sheet, options.may_replace)
    planned = plan_images(requests, seed=options.seed)
    outputs = Outputs(options.out, planned, options.overwrite, options.skip_existing)
    results = results or Results(options.json)
    for result in outputs.skipped:
        results.report(result)
    target = device.choose(options.precision, options.offload)
    task = load_decoder(target, name)
    _low_res_factor(task, name)
    origin = Origin("upscale", resolved.name, asdict(resolved.options), {"upsampler": digest(checkpoint.resolve(name))})
    progress = Progress("upscale", -(-len(outputs.todo) // distributed.world_size()), quiet=options.quiet)

    def upscale_items(items: list[PlannedImage]) -> Iterator[Image.Image | str]:
        return (_upscaled(target, task, item, resolved.options) for item in items)

    for start in range(0, len(outputs.todo), distributed.world_size()):
        batch = outputs.todo[start : start + distributed.world_size()]
        for item, upscaled in zip(batch, distributed.distributed_map(batch, upscale_items)):
            if isinstance(upscaled, str):
                results.report(outputs.failed(item, upscaled))
            else:
                results.report(outputs.save(item, upscaled, origin))
        progress.advance()
    progress.close()
    if options.sheet:
        save_sheet(options.sheet, results.reported)
    return results.finish()


def _upscaled(
    target: device.Device, task: DecoderTask, item: PlannedImage, options: DiffusionOptions
) -> Image.Image | str:
    """Return the enlarged image of a request, or the reason why there is none."""
    if item.request.failed:
        return item.request.fields["error"]
    path = item.request.fields["image"]
    try:
        image = images.open_image(path)
    except images.BadImage as error:
        return str(error)
    max_side = MAX_ENLARGEMENT * task.size // _low_res_factor(task)
    if max(image.size) > max_side:
        return f"{path}: {image.width}x{image.height} px; this upsampler takes at most {max_side} px a side"
    pixels = images.to_tensor(image)
    return images.to_pil(_enlarge(target, task, item.request.prompt or "", pixels, item.noise_seed, options))


def _enlarge(
    target: device.Device, task: DecoderTask, text: str, pixels: torch.Tensor, seed: int, options: DiffusionOptions
) -> torch.Tensor:
    """Enlarge (3, h, w) to (3, factor h, factor w), padded with its border to a multiple that the network divides."""
    factor = _low_res_factor(task)
    multiple = task.model.factor // math.gcd(task.model.factor, factor)
    height, width = pixels.shape[1:]
    padded = F.pad(pixels[None], (0, -width % multiple, 0, -height % multiple), mode="replicate")
    large = upsample(target, task, [text], padded, noise_source(torch.tensor([seed])), options)
    return large[0, :, : factor * height, : factor * width].float().cpu()


def upsampler_sizes(name: str) -> tuple[int, int]:
    """Return the side in pixels of the images that an upsampler was trained on, and the factor it enlarges by.

    Raises RecipeError for a model that is not an upsampler, CheckpointError.
    """
    task: Any = checkpoint.load_meta(name)
    return task.size, _low_res_factor(task, name)


def _low_res_factor(task: DecoderTask, name: str = "this model") -> int:
    if task.low_res_factor is None:
        raise RecipeError(f"{name} generates images and enlarges none; name an upsampler")
    return task.low_res_factor


def find_upsampler(recipe: str, sampling: Mapping[str, Any]) -> tuple[str, ResolvedSystem]:
    """Return the checkpoint of an upsampler, of a system or by itself, and the system with only that part.

    sampling: options of the upsampler, None where not given. Raises RecipeError, CheckpointError.
    """
    if not system_class(recipe).supports_upscaling:
        raise RecipeError(
            f"{recipe}: this system has no upsampler; name one of type glide or unclip, or an upsampler's checkpoint"
        )
    resolved = resolve(recipe, {f"up_{key}": value for key, value in sampling.items()})
    part = "upsampler" if resolved.parts.get("upsampler") else "decoder"
    return str(resolved.parts[part]), replace(resolved.with_parts(part), reranker=())
