"""What GLIDE and unCLIP share: sampling options, loading decoders, denoising, DDIM inversion and upsampling."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from .. import checkpoint
from ..data.degradations import quantize
from ..diffusion import guidance
from ..diffusion.guidance import Gradient
from ..diffusion.process import Denoiser
from ..diffusion.respacing import timesteps
from ..diffusion.samplers import SAMPLERS, ddim_inversion
from ..models.unet import UNet
from ..registry import RecipeError
from ..tasks.decoder import DIFFUSION_MODELS, DecoderTask, KnownRegion
from .device import Device
from .system import KnownAtSize, OnImages, OnStep, System

if TYPE_CHECKING:
    SamplerName = str
else:
    SamplerName = Literal[tuple(SAMPLERS)]  # so that a new sampler is only an entry of SAMPLERS
NoiseStream = Callable[[Tensor], Tensor]
"""From a tensor to noise of its shape, (B, ...); each call continues the random stream of each image."""


@dataclass(frozen=True)
class DiffusionOptions:
    """The options that all `sample` sections of diffusion systems share.

    steps: how many timesteps, or which (diffusion/respacing.py). eta: of DDIM, 0 deterministic, 1 as DDPM.
    guidance_scale: 1 disables classifier-free guidance. guidance_interval: first and last guided timestep, 0 the clean
    end; None guides all. dynamic_threshold: percentile in (0, 1]; None clips x0 to the range of pixels. up_...: of the
    upsampler, which is not guided; up_temperature: a factor of its initial noise.
    """

    steps: str = "27"
    sampler: SamplerName = "ddim"
    eta: float = 0.0
    guidance_scale: float = 3.0
    guidance_interval: list[int] | None = None
    dynamic_threshold: float | None = None
    up_steps: str = "fast27"
    up_sampler: SamplerName = "ddim"
    up_temperature: float = 0.997

    def __post_init__(self):
        for steps in self.step_options():
            try:
                timesteps(steps)
            except ValueError as error:
                raise RecipeError(str(error)) from None
        if not 0 <= self.eta <= 1:
            raise RecipeError(f"eta {self.eta} is not between 0 and 1")
        if self.eta and "eta" not in inspect.signature(SAMPLERS[self.sampler]).parameters:
            raise RecipeError(f"eta is only for sampler ddim; {self.sampler} has none")
        if not 0 <= self.guidance_scale < 1000:
            raise RecipeError(f"guidance_scale {self.guidance_scale} is not between 0 and 1000")
        interval = self.guidance_interval
        if interval is not None and (len(interval) != 2 or interval != sorted(interval)):
            raise RecipeError(f"guidance_interval {interval}: give the first and the last timestep, such as 400,999")
        if self.dynamic_threshold is not None and not 0 < self.dynamic_threshold <= 1:
            raise RecipeError(f"dynamic_threshold {self.dynamic_threshold} is not in (0, 1]")
        if not 0 < self.up_temperature <= 2:
            raise RecipeError(f"up_temperature {self.up_temperature} is not in (0, 2]")

    def step_options(self) -> tuple[str, ...]:
        """Return the values of all options that name timesteps."""
        return self.steps, self.up_steps


class DiffusionSystem(System):
    """A system with a diffusion decoder. A subclass generates one batch; the loop over batches is here."""

    default_batch_size = 16
    supports_inpainting = True
    supports_upscaling = True
    supports_offload = True
    shows_denoising = True

    decoder: DecoderTask

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[Sequence[int]],
        options: Any,
        batch_size: int,
        on_images: OnImages | None = None,
        *,
        image_prefix: None = None,
        on_step: OnStep | None = None,
        known_region: KnownAtSize | None = None,
    ) -> Tensor:
        """See System.generate."""
        texts = [text for text, row in zip(prompts, seeds) for _ in row]
        flat_seeds = [seed for row in seeds for seed in row]
        finished = []
        for start in range(0, len(texts), batch_size):
            batch = slice(start, start + batch_size)
            images = self.generate_batch(texts[batch], flat_seeds[batch], options, on_step, known_region)
            finished.append(images.float().cpu().clamp(-1, 1))
            if on_images:
                on_images(len(images))
        return torch.cat(finished).unflatten(0, (len(prompts), -1))

    def generate_batch(
        self,
        texts: list[str],
        seeds: list[int],
        options: Any,
        on_step: OnStep | None,
        known_region: KnownAtSize | None,
    ) -> Tensor:
        """Return one image per text, (B, 3, S, S)."""
        raise NotImplementedError

    def reconstruct(self, images: Tensor, texts: Sequence[str], options: Any, iters: int) -> Tensor:
        """Return images (B, 3, s, s) after DDIM inversion to noise and back by the decoder, without guidance.

        texts: captions, for a decoder that reads only text. iters: see samplers.invert.
        """
        task = self.decoder
        with self.device.turn(task):
            denoise = task.denoiser(texts)
            x = invert_images(self.device, task, denoise, images, options.steps, iters)
            return denoise_from(
                self.device, task, denoise, x, torch.zeros_like, options.steps, "ddim", clip=clips_x0(task)
            )


def load_decoder(device: Device, name: str, frozen: Mapping[str, Any] | None = None) -> DecoderTask:
    """Return a decoder on its device, frozen, in the device's type except for its first and last layers.

    frozen: see checkpoint.compose. Raises CheckpointError, or RecipeError for a checkpoint that is no decoder.
    """
    task = checkpoint.load(name, DIFFUSION_MODELS, frozen, mmap=device.offload)
    if not isinstance(task, DecoderTask):
        raise RecipeError(f"{name} is not a decoder that generates images by itself")
    task.requires_grad_(False)
    networks = [module for module in task.model.modules() if isinstance(module, UNet)]
    device.place(task, device.dtype, [end for network in networks for end in (network.time_embed, network.out)])
    return task


def load_base_decoder(device: Device, name: str, frozen: Mapping[str, Any] | None = None) -> DecoderTask:
    """Return a decoder that generates images from noise only. Raises RecipeError for an upsampler."""
    task = load_decoder(device, name, frozen)
    if task.low_res_factor:
        raise RecipeError(f"parts.decoder: {name} is an upsampler; name it as parts.upsampler")
    return task


def load_upsampler(device: Device, part: str, name: str, size: int) -> DecoderTask:
    """Return the upsampler of images of `size` pixels. part: its name in the recipe. Raises RecipeError."""
    task = load_decoder(device, name)
    if upsampled_side(task, size) != task.size:
        raise RecipeError(f"parts.{part}: {name} does not upsample images of {size} px")
    return task


def upsampled_side(upsampler: DecoderTask, side: int) -> int | None:
    """Return the side that an upsampler makes of a side in pixels; None for a task that is not an upsampler."""
    return upsampler.low_res_factor and upsampler.low_res_factor * side


def upsample(
    device: Device,
    task: DecoderTask,
    texts: Sequence[str],
    small: Tensor,
    noise: NoiseStream,
    options: DiffusionOptions,
    known: KnownRegion | None = None,
    round_input: bool = True,
) -> Tensor:
    """Return images (B, 3, h, w) upsampled without guidance. round_input: to 8 bits first, as in image files."""
    small = quantize(small.float()) if round_input else small.float().clamp(-1, 1)
    height, width = (upsampled_side(task, side) or 0 for side in small.shape[-2:])
    x = options.up_temperature * noise(torch.empty(len(small), 3, height, width))
    with device.turn(task):
        denoise = task.denoiser(texts, low_res=small.to(device.name), known=known)
        return denoise_from(device, task, denoise, x, noise, options.up_steps, options.up_sampler)


def denoise_from(
    device: Device,
    task: DecoderTask,
    denoise: Denoiser,
    x: Tensor,
    noise: NoiseStream,
    steps: str,
    sampler: str,
    eta: float = 0.0,
    dynamic_threshold: float | None = None,
    gradient: Gradient | None = None,
    on_step: OnStep | None = None,
    clip: bool = True,
) -> Tensor:
    """Return the images that a sampler makes of noise x, (B, 3, S, S).

    gradient: see guidance.gradient_guided. clip: False leaves the predicted x0 unclipped.
    """
    if clip:
        denoise = guidance.threshold(denoise, percentile=dynamic_threshold)
    accepted = inspect.signature(SAMPLERS[sampler]).parameters
    sampler_options: dict[str, Any] = {"eta": eta} if "eta" in accepted else {}
    if gradient and "mean_gradient" in accepted:
        sampler_options["mean_gradient"] = gradient
    elif gradient:
        denoise = guidance.gradient_guided(denoise, gradient)
    with device.inference(task):
        visited = timesteps(steps, len(task.process))
        return SAMPLERS[sampler](task.process, denoise, x.to(device.name), visited, noise, on_step, **sampler_options)


def invert_images(
    device: Device, task: DecoderTask, denoise: Denoiser, images: Tensor, steps: str, iters: int = 0
) -> Tensor:
    """Return the noise from which `denoise_from`, by DDIM along the same steps, recovers the images, (B, 3, S, S).

    iters: see samplers.invert.
    """
    if clips_x0(task):
        denoise = guidance.threshold(denoise)
    with device.inference(task):
        return ddim_inversion(task.process, denoise, images.to(device.name), timesteps(steps, len(task.process)), iters)


def clips_x0(task: DecoderTask) -> bool:
    """Return whether x0 must be clipped on the way to the noise and back, which loses what is clipped.

    It must where the network predicts eps: of nearly pure noise, x0 is its error times a thousand.
    """
    return task.process.prediction_type == "eps"


def known_at(device: Device, known_region: KnownAtSize | None, size: int, count: int) -> KnownRegion | None:
    """Return the known region of `count` images of a size, on the device."""
    if known_region is None:
        return None
    image, mask = (tensor.expand(count, -1, -1, -1).to(device.name) for tensor in known_region(size))
    return image, mask
