"""DDIM inversion of images to noise, and the images that it leads back to (Dhariwal and Nichol 2021, appendix F)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..systems import device, systems
from ..systems.glide import clamps, inverted, run
from ..systems.unclip import UnCLIP
from .inpaint import resolve_diffusion
from .latent_editor import INVERSION_ITERS

UNUSED_PARTS = ("prior", "upsampler", "upsampler_2", "noised_clip", "classifier")


class DDIMInversion:
    """The decoder of a system, used in both directions without guidance.

    A decoder of CLIP embeddings is conditioned on those of the images and on no text, as `dalle vary --eta 0` does;
    any other on their captions. decoder: name of its checkpoint; size: side of its images in pixels. Raises
    RecipeError, CheckpointError.
    """

    def __init__(self, recipe: str, steps: str, precision: str = "auto", offload: bool = False):
        system, part, parts, settings = resolve_diffusion(recipe, {"steps": steps}, "inversion")
        self.options, self.batch_size = replace(settings, sampler="ddim", guidance_scale=1.0, eta=0.0), part.together
        used = {name: source for name, source in parts.items() if name not in UNUSED_PARTS}
        self.system: Any = systems.build(system["system"], "system", device=device.choose(precision, offload), **used)
        self.name, self.size = str(parts["decoder"]), self.system.decoder.size

    def reconstruct(
        self,
        pixels: Tensor,
        texts: Sequence[str],
        batch_size: int | None = None,
        iterations: int = INVERSION_ITERS,
        on_images: Callable[[int], Any] = lambda count: None,
    ) -> Tensor:
        """Return the images that inversion leads back to, (N, 3, size, size) to the same, on the CPU.

        iterations: fixed-point iterations per step, see samplers.invert. on_images: called with the number of images
        finished since the last call.
        """
        parts = []
        step = batch_size or self.batch_size
        for start in range(0, len(pixels), step):
            batch = slice(start, start + step)
            parts.append(self._reconstruct(pixels[batch], texts[batch], iterations).float().cpu().clamp(-1, 1))
            on_images(len(parts[-1]))
        return torch.cat(parts)

    def _reconstruct(self, pixels: Tensor, texts: Sequence[str], iterations: int) -> Tensor:
        system, steps = self.system, self.options.steps
        if isinstance(system, UnCLIP):
            z, no_texts = system.embed_images(pixels), [""] * len(texts)
            x = system.invert(pixels, z, no_texts, steps, refine=iterations)
            return system.decode(z, no_texts, x, self.options, exact=True)
        task, target = system.decoder, system.device
        with target.turn(task):
            denoise = task.denoiser(texts)
            x = inverted(target, task, denoise, pixels, steps, iterations)
            return run(target, task, denoise, x, torch.zeros_like, steps, "ddim", clamp=clamps(task))
