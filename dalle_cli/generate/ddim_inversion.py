"""Pictures to noise by DDIM inversion and back: `dalle evaluate inversion` (Dhariwal and Nichol 2021, appendix F)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..systems import device, systems
from ..systems.glide import clamps, inverted, run
from ..systems.unclip import UnCLIP
from .inpaint import diffusion
from .latent_editor import INVERSION_ITERS

UNUSED = ("prior", "upsampler", "upsampler_2", "noised_clip", "classifier")  # parts that neither way needs


class DDIMInversion:
    """The decoder of a system, on the way to the noise and back without guidance.

    name: the checkpoint of the decoder; size: pixels of its pictures.

    One that reads CLIP embeddings is told those of the pictures and no text, as `dalle vary --eta 0`; any other is told
    their captions. Raises RecipeError, CheckpointError.
    """

    def __init__(self, recipe: str, steps: str, precision: str = "auto", offload: bool = False):
        system, part, parts, settings = diffusion(recipe, {"steps": steps}, "inversion")
        self.options, self.batch_size = replace(settings, sampler="ddim", guidance_scale=1.0, eta=0.0), part.together
        kept = {name: source for name, source in parts.items() if name not in UNUSED}
        self.system: Any = systems.build(system["system"], "system", device=device.choose(precision, offload), **kept)
        self.name, self.size = str(parts["decoder"]), self.system.decoder.size

    def reconstruct(
        self,
        pictures: Tensor,
        texts: Sequence[str],
        batch: int | None = None,
        refine: int = INVERSION_ITERS,
        watch: Callable[[int], Any] = lambda count: None,
    ) -> Tensor:
        """What comes back of pictures, (N, 3, size, size) to the same, on the CPU.

        batch: pictures worked on together. refine: see samplers.invert. watch: called with the number that are done.
        """
        found = []
        for start in range(0, len(pictures), batch or self.batch_size):
            some = slice(start, start + (batch or self.batch_size))
            found.append(self._reconstruct(pictures[some], texts[some], refine).float().cpu().clamp(-1, 1))
            watch(len(found[-1]))
        return torch.cat(found)

    def _reconstruct(self, pictures: Tensor, texts: Sequence[str], refine: int) -> Tensor:
        system, steps = self.system, self.options.steps
        if isinstance(system, UnCLIP):
            z, nothing = system.embed_images(pictures), [""] * len(texts)
            x = system.invert(pictures, z, nothing, steps, refine=refine)
            return system.decode(z, nothing, x, self.options, exact=True)
        task, place = system.decoder, system.device
        with place.turn(task):
            denoise = task.denoiser(texts)
            x = inverted(place, task, denoise, pictures, steps, refine)
            return run(place, task, denoise, x, torch.zeros_like, steps, "ddim", clamp=clamps(task))
