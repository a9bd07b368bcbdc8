"""DDIM inversion of images to noise, and the images that it leads back to (Dhariwal and Nichol 2021, appendix F)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .inpaint import resolve_diffusion
from .latent_editor import INVERSION_ITERS
from .options import GenerationOptions

PARTS = ("decoder", "clip")  # of a system, what inversion needs


class DDIMInversion:
    """The decoder of a system, used in both directions without guidance.

    A decoder of CLIP embeddings is conditioned on those of the images and on no text, as `dalle vary --eta 0` does;
    any other on their captions. decoder: name of its checkpoint; size: side of its images in pixels. Raises
    RecipeError, CheckpointError.
    """

    def __init__(self, recipe: str, steps: str, precision: str = "auto", offload: bool = False):
        resolved = resolve_diffusion(GenerationOptions(recipe, {"steps": steps}), recipe, "inversion")
        resolved = resolved.with_options(sampler="ddim", guidance_scale=1.0, eta=0.0).with_parts(*PARTS)
        self.options, self.batch_size = resolved.options, resolved.cls.default_batch_size
        self.system: Any = resolved.load(resolved.choose_device(precision, offload))
        self.name, self.size = str(resolved.parts["decoder"]), self.system.decoder.size

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
            after = self.system.reconstruct(pixels[batch], texts[batch], self.options, iterations)
            parts.append(after.float().cpu().clamp(-1, 1))
            on_images(len(parts[-1]))
        return torch.cat(parts)
