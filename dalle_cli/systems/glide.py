"""GLIDE as a system: a decoder draws by diffusion, guided, and an upsampler enlarges (Nichol et al. 2022)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import checkpoint
from ..data.degradations import rounded
from ..diffusion import guidance
from ..diffusion.guidance import Gradient
from ..diffusion.respacing import timesteps
from ..diffusion.samplers import SAMPLERS, StepCallback, ddim_inversion
from ..models.conditions import ClipCondition, ClipTextCondition, InpaintCondition, LowResCondition, TextCondition
from ..models.unet import UNet
from ..nn.noise import noise_source
from ..nn.prepacked import prepacked
from ..registry import RecipeError
from ..tasks.decoder import DIFFUSION_MODELS, DecoderTask, KnownRegion
from . import systems
from .device import Device
from .guides import Guide, toward_class, toward_clip

Name = Literal["ddim", "ddpm", "plms", "dpm++"]
PARTS = {"clip": "noised_clip", "classifier": "classifier"}  # what guides, and the part that it needs


@dataclass(frozen=True)
class Diffusion:
    """What `sample` sections of decoders and upsamplers share.

    steps: how many timesteps, or which (diffusion/respacing.py). eta: of DDIM, 0 deterministic, 1 as DDPM.
    guidance_scale: 1 disables classifier-free guidance. guidance_interval: first and last guided timestep, 0 the clean
    end; None guides all. dynamic_threshold: percentile in (0, 1]; None clips x0 to the range of pixels. up_...: of the
    upsampler, which is not guided; up_temperature: a factor of its initial noise.
    """

    steps: str = "27"
    sampler: Name = "ddim"
    eta: float = 0.0
    guidance_scale: float = 3.0
    guidance_interval: list[int] | None = None
    dynamic_threshold: float | None = None
    up_steps: str = "fast27"
    up_sampler: Name = "ddim"
    up_temperature: float = 0.997

    def __post_init__(self):
        for steps in self.visited():
            try:
                timesteps(steps)
            except ValueError as error:
                raise RecipeError(str(error)) from None
        if not 0 <= self.eta <= 1:
            raise RecipeError(f"eta {self.eta} is not between 0 and 1")
        if self.eta and self.sampler != "ddim":
            raise RecipeError(f"eta is of sampler ddim; {self.sampler} takes none")
        if not 0 <= self.guidance_scale < 1000:
            raise RecipeError(f"guidance_scale {self.guidance_scale} is not between 0 and 1000")
        if self.guidance_interval is not None and (
            len(self.guidance_interval) != 2 or self.guidance_interval != sorted(self.guidance_interval)
        ):
            raise RecipeError(
                f"guidance_interval {self.guidance_interval}: give the first time and the last, such as 400,999"
            )
        if self.dynamic_threshold is not None and not 0 < self.dynamic_threshold <= 1:
            raise RecipeError(f"dynamic_threshold {self.dynamic_threshold} is not in (0, 1]")
        if not 0 < self.up_temperature <= 2:
            raise RecipeError(f"up_temperature {self.up_temperature} is not in (0, 2]")

    def visited(self) -> tuple[str, ...]:
        """The options that name steps."""
        return self.steps, self.up_steps


@dataclass(frozen=True)
class Sampling(Diffusion):
    """The `sample` section. guidance: cfg (classifier-free), or the gradient of a CLIP or a classifier."""

    guidance: Literal["cfg", "clip", "classifier"] = "cfg"


@systems.register("glide")
class GLIDE:
    """Draws pictures of prompts. decoder, upsampler: checkpoints; the others guide, where that is asked for.

    noised_clip: a noised CLIP, or an ordinary one, which then judges the data that is expected.
    """

    sampling = Sampling
    together = 16
    shows = True
    offloads = True

    @staticmethod
    def check(options: Sampling, parts: Mapping[str, Any]) -> None:
        """Raises RecipeError when what is to guide is not among the parts, CheckpointError when it is not there."""
        needed = PARTS.get(options.guidance)
        if needed and not parts.get(needed):
            raise RecipeError(
                f"guidance {options.guidance} needs a checkpoint as parts.{needed}, and the recipe names none"
            )
        if needed:
            checkpoint.resolve(str(parts[needed]))

    def __init__(
        self,
        device: Device,
        decoder: str,
        upsampler: str | None = None,
        noised_clip: str | None = None,
        classifier: str | None = None,
    ):
        self.device = device
        self.decoder = load(device, decoder)
        if self.decoder.condition(LowResCondition):
            raise RecipeError(f"parts.decoder: {decoder} enlarges pictures; name it as parts.upsampler")
        reads_text = self.decoder.condition(TextCondition) or (
            self.decoder.condition(ClipTextCondition) and self.decoder.clip is not None
        )
        if self.decoder.condition(ClipCondition) and not reads_text:
            raise RecipeError(f"parts.decoder: {decoder} reads no text by itself; it draws in a system of type unclip")
        self.upsampler = load(device, upsampler) if upsampler else None
        self.size = self.upsampler.size if self.upsampler else self.decoder.size
        if self.upsampler and enlarged(self.upsampler, self.decoder.size) != self.size:
            raise RecipeError(f"parts.upsampler: {upsampler} does not begin with {self.decoder.size} px")
        self.guides = {"noised_clip": noised_clip, "classifier": classifier}  # loaded, and there, only where they guide
        self._named = {"decoder": decoder, "upsampler": upsampler}

    def files(self, options: Sampling) -> dict[str, Path]:
        """The checkpoints that draw with these options, by name."""
        used = {
            **self._named,
            **{part: self.guides[part] for guide, part in PARTS.items() if guide == options.guidance},
        }
        return {name: checkpoint.resolve(source) for name, source in used.items() if source}

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[Sequence[int]],
        options: Sampling,
        batch: int,
        first: None = None,
        watch: Callable[[int], Any] | None = None,
        see: StepCallback | None = None,
        region: Callable[[int], KnownRegion] | None = None,
    ) -> Tensor:
        """Pictures, (prompts, candidates, 3, S, S) in [-1, 1], on the CPU.

        seeds: of each candidate of each prompt, as many for all. batch: pictures drawn together. watch: called with the
        number of pictures finished; see: with each step and the pictures expected then. region: from a size to the
        part of all pictures that is known.
        """
        texts = [text for text, own in zip(prompts, seeds) for _ in own]
        flat = [seed for own in seeds for seed in own]
        drawn = []
        for start in range(0, len(texts), batch):
            some = texts[start : start + batch]
            noise = noise_source(torch.tensor(flat[start : start + batch]))
            with self.device.turn(self.decoder, *self._guiding(options)):
                pictures = self._base(some, noise, options, see, region)
            if self.upsampler:
                known = known_at(self.device, region, self.upsampler.size, len(some))
                pictures = enlarge(self.device, self.upsampler, some, pictures, noise, options, known)
            drawn.append(pictures.float().cpu().clamp(-1, 1))
            if watch:
                watch(len(some))
        return torch.cat(drawn).unflatten(0, (len(prompts), -1))

    def _base(
        self,
        texts: list[str],
        noise: Callable[[Tensor], Tensor],
        options: Sampling,
        see: StepCallback | None,
        region: Callable[[int], KnownRegion] | None,
    ) -> Tensor:
        task = self.decoder
        known = known_at(self.device, region, task.size, len(texts))
        by_text = options.guidance == "cfg"
        denoise = task.denoiser(
            texts, options.guidance_scale if by_text else 1.0, known=known, guidance_interval=options.guidance_interval
        )
        gradient: Gradient | None = None
        if options.guidance == "clip":
            gradient = toward_clip(self._clip, texts, denoise, options.guidance_scale)
        elif options.guidance == "classifier":
            gradient = toward_class(self._classifier, texts, options.guidance_scale)
        return run(
            self.device, task, denoise, noise(torch.empty(len(texts), 3, task.size, task.size)), noise, options.steps,
            options.sampler, options.eta, options.dynamic_threshold, gradient, see,
        )  # fmt: skip

    def _guiding(self, options: Sampling) -> list[nn.Module]:
        guides = {"clip": lambda: [self._clip.task], "classifier": lambda: [self._classifier.task]}
        return guides.get(options.guidance, list)()

    @cached_property
    def _clip(self) -> Guide:
        return Guide(self.device, str(self.guides["noised_clip"]), ("noised-clip", "clip"), self.decoder)

    @cached_property
    def _classifier(self) -> Guide:
        return Guide(self.device, str(self.guides["classifier"]), ("classifier",), self.decoder)


def known_at(device: Device, region: Callable[[int], KnownRegion] | None, size: int, count: int) -> KnownRegion | None:
    """What is known of `count` pictures of a size, on the device."""
    if region is None:
        return None
    image, mask = (one.expand(count, -1, -1, -1).to(device.name) for one in region(size))
    return image, mask


def load(device: Device, name: str, frozen: Mapping[str, Any] | None = None) -> DecoderTask:
    """A decoder on its device, its weights fixed, and in the device's type but for its ends, as published.

    frozen: see checkpoint.compose. Raises CheckpointError, or RecipeError for what draws nothing.
    """
    task = checkpoint.load(name, DIFFUSION_MODELS, frozen, mmap=device.offload)
    if not isinstance(task, DecoderTask):
        raise RecipeError(f"{name} is no decoder that draws by itself")
    task.requires_grad_(False)
    networks = [module for module in task.model.modules() if isinstance(module, UNet)]
    device.place(task, device.dtype, [end for network in networks for end in (network.time_embed, network.out)])
    return task


def enlarged(upsampler: DecoderTask, side: int) -> int | None:
    """What an upsampler makes of a side; None where it is none."""
    condition = upsampler.condition(LowResCondition)
    return condition and condition.factor * side


def enlarge(
    device: Device,
    task: DecoderTask,
    texts: Sequence[str],
    small: Tensor,
    noise: Callable[[Tensor], Tensor],
    options: Diffusion,
    region: KnownRegion | None = None,
    whole: bool = True,
) -> Tensor:
    """Pictures, (B, 3, h, w), enlarged by an upsampler, without guidance. whole: rounded before, as files are."""
    small = rounded(small.float()) if whole else small.float().clamp(-1, 1)
    height, width = (enlarged(task, side) or 0 for side in small.shape[-2:])
    start = options.up_temperature * noise(torch.empty(len(small), 3, height, width))
    with device.turn(task):
        denoise = task.denoiser(texts, low_res=small.to(device.name), known=region)
        return run(device, task, denoise, start, noise, options.up_steps, options.up_sampler)


def run(
    device: Device,
    task: DecoderTask,
    denoise: guidance.Denoiser,
    x: Tensor,
    noise: Callable[[Tensor], Tensor],
    steps: str,
    sampler: str,
    eta: float = 0.0,
    share: float | None = None,
    gradient: Gradient | None = None,
    see: StepCallback | None = None,
    clamp: bool = True,
) -> Tensor:
    """From noise x to pictures by one sampler.

    share: see guidance.threshold; gradient: see guidance.toward; clamp: False leaves what is expected as it is.
    """
    if clamp:
        denoise = guidance.threshold(denoise, percentile=share)
    more: dict[str, Any] = {"eta": eta} if sampler == "ddim" else {}
    if gradient and sampler == "ddpm":
        more["mean_gradient"] = gradient
    elif gradient:
        denoise = guidance.gradient_guided(denoise, gradient)
    with device.autocast(), prepacked(task.model):
        visited = timesteps(steps, len(task.process))
        return SAMPLERS[sampler](task.process, denoise, x.to(device.name), visited, noise, see, **more)


def inverted(
    device: Device, task: DecoderTask, denoise: guidance.Denoiser, images: Tensor, steps: str, refine: int = 0
) -> Tensor:
    """The noise of which `run`, by ddim along the same steps, makes the same pictures, (B, 3, S, S) to the same.

    refine: see samplers.invert.
    """
    if clamps(task):
        denoise = guidance.threshold(denoise)
    with device.autocast(), prepacked(task.model):
        return ddim_inversion(
            task.process, denoise, images.to(device.name), timesteps(steps, len(task.process)), refine
        )


def clamps(task: DecoderTask) -> bool:
    """Whether what is expected is clamped on the way to the noise and back, which loses what is clamped.

    Where a network predicts eps it must be: of nearly pure noise, x0 is its error times a thousand.
    """
    return task.process.prediction_type == "eps"


def inpaints(task: DecoderTask) -> bool:
    """Whether a decoder was trained to fill what is unknown."""
    return task.condition(InpaintCondition) is not None
