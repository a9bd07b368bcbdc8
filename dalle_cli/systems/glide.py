"""GLIDE (Nichol et al. 2022): a guided diffusion decoder reads the text, and an upsampler enlarges its images."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import checkpoint
from ..diffusion.guidance import Gradient
from ..nn.noise import noise_source
from ..registry import RecipeError
from . import systems
from .device import Device
from .diffusion import (
    DiffusionOptions,
    DiffusionSystem,
    NoiseStream,
    denoise_from,
    known_at,
    load_base_decoder,
    load_upsampler,
    upsample,
)
from .guides import Guide, toward_class, toward_clip
from .system import KnownAtSize, OnStep

GUIDE_PARTS = {"clip": "noised_clip", "classifier": "classifier"}  # guidance -> the part that it needs


@dataclass(frozen=True)
class GLIDEOptions(DiffusionOptions):
    """The `sample` section. guidance: cfg (classifier-free), the gradient of a CLIP or classifier, or none."""

    guidance: Literal["cfg", "clip", "classifier", "none"] = "cfg"


@systems.register("glide")
class GLIDE(DiffusionSystem):
    """Generates images from prompts. decoder, upsampler: checkpoints; the others guide, if the options say so.

    noised_clip: a noised CLIP, or an ordinary one, which then reads the predicted x0.
    """

    options_type = GLIDEOptions

    @staticmethod
    def check(options: GLIDEOptions, parts: Mapping[str, Any]) -> None:
        """Raise RecipeError if the guide is not among the parts, CheckpointError if its checkpoint does not exist."""
        needed = GUIDE_PARTS.get(options.guidance)
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
        self.decoder = load_base_decoder(device, decoder)
        if self.decoder.image_embed_dim and not self.decoder.reads_text:
            raise RecipeError(f"parts.decoder: {decoder} reads no text by itself; use it in a system of type unclip")
        self.upsampler = load_upsampler(device, "upsampler", upsampler, self.decoder.size) if upsampler else None
        self.size = self.upsampler.size if self.upsampler else self.decoder.size
        # Guides are loaded when they are first used; their checkpoints need not exist otherwise.
        self.guides = {"noised_clip": noised_clip, "classifier": classifier}
        self._sources = {"decoder": decoder, "upsampler": upsampler}

    def checkpoints(self, options: GLIDEOptions) -> dict[str, Path]:
        """See System.checkpoints."""
        guide = GUIDE_PARTS.get(options.guidance)
        used = {**self._sources, **({guide: self.guides[guide]} if guide else {})}
        return {part: checkpoint.resolve(source) for part, source in used.items() if source}

    def generate_batch(
        self,
        texts: list[str],
        seeds: list[int],
        options: GLIDEOptions,
        on_step: OnStep | None,
        known_region: KnownAtSize | None,
    ) -> Tensor:
        """See DiffusionSystem.generate_batch."""
        noise = noise_source(torch.tensor(seeds))
        with self.device.turn(self.decoder, *self._guide_tasks(options)):
            images = self._decode(texts, noise, options, on_step, known_region)
        if self.upsampler:
            known = known_at(self.device, known_region, self.upsampler.size, len(texts))
            images = upsample(self.device, self.upsampler, texts, images, noise, options, known)
        return images

    def _decode(
        self,
        texts: list[str],
        noise: NoiseStream,
        options: GLIDEOptions,
        on_step: OnStep | None,
        known_region: KnownAtSize | None,
    ) -> Tensor:
        task = self.decoder
        known = known_at(self.device, known_region, task.size, len(texts))
        scale = options.guidance_scale if options.guidance == "cfg" else 1.0
        denoise = task.denoiser(texts, scale, known=known, guidance_interval=options.guidance_interval)
        gradient: Gradient | None = None
        if options.guidance == "clip":
            gradient = toward_clip(self._clip, texts, denoise, options.guidance_scale)
        elif options.guidance == "classifier":
            gradient = toward_class(self._classifier, texts, options.guidance_scale)
        x = noise(torch.empty(len(texts), 3, task.size, task.size))
        return denoise_from(
            self.device, task, denoise, x, noise, options.steps, options.sampler, options.eta,
            options.dynamic_threshold, gradient, on_step,
        )  # fmt: skip

    def _guide_tasks(self, options: GLIDEOptions) -> list[nn.Module]:
        guides = {"clip": lambda: [self._clip.task], "classifier": lambda: [self._classifier.task]}
        return guides.get(options.guidance, list)()

    @cached_property
    def _clip(self) -> Guide:
        return Guide(self.device, str(self.guides["noised_clip"]), ("noised-clip", "clip"), self.decoder)

    @cached_property
    def _classifier(self) -> Guide:
        return Guide(self.device, str(self.guides["classifier"]), ("classifier",), self.decoder)
