"""unCLIP as a system (Ramesh et al. 2022): a prior makes CLIP embeddings of texts, a decoder makes pictures of them.

The methods beside `draw` are what is done with the two-part latent of a picture, its embedding and the noise that the
decoder makes it of. Shapes: B batch, e width of an embedding, S pixels of the decoder. Embeddings are CLIP's features
as its projections give them (tasks/embedding.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import checkpoint
from ..diffusion.samplers import StepCallback
from ..models.conditions import ClipCondition, LowResCondition
from ..nn.noise import Stream, noise_source
from ..nn.prepacked import prepacked
from ..registry import RecipeError
from ..tasks import embedding
from ..tasks.clip import CLIPTask
from ..tasks.decoder import DecoderTask, KnownRegion
from . import systems
from .device import Device
from .glide import Diffusion, Name, clamps, enlarge, enlarged, inverted, known_at, load, run

Noise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sampling(Diffusion):
    """The `sample` section. `guidance_scale` is the decoder's guidance, from no text and no embedding.

    prior_steps: of a diffusion prior. prior_guidance_scale: 1 disables its classifier-free guidance. prior_samples:
    embeddings sampled for an image; the nearest to the text's is used. ..._2: of the second upsampler.
    """

    prior_steps: str = "25"
    prior_guidance_scale: float = 1.0
    prior_samples: int = 2
    up_steps_2: str = "15"
    up_sampler_2: Name = "ddim"

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.prior_guidance_scale < 1000:
            raise RecipeError(f"prior_guidance_scale {self.prior_guidance_scale} is not between 0 and 1000")
        if not 1 <= self.prior_samples <= 1024:
            raise RecipeError(f"prior_samples {self.prior_samples} is not between 1 and 1024")

    def visited(self) -> tuple[str, ...]:
        return *super().visited(), self.prior_steps, self.up_steps_2


@systems.register("unclip")
class UnCLIP:
    """Draws pictures of prompts, and redraws pictures from their embeddings. All parts are checkpoints.

    clip: the CLIP whose texts the prior reads and whose picture embeddings the decoder reads. prior: any task that
    draws embeddings; without one, only pictures can be redrawn.
    """

    sampling = Sampling
    together = 16
    shows = True
    offloads = True

    @staticmethod
    def check(options: Sampling, parts: Mapping[str, Any]) -> None:
        """Raises RecipeError when the second upsampler stands alone."""
        if parts.get("upsampler_2") and not parts.get("upsampler"):
            raise RecipeError("parts.upsampler_2 enlarges what parts.upsampler made, and the recipe names none")

    def __init__(
        self,
        device: Device,
        decoder: str,
        clip: str,
        prior: str | None = None,
        upsampler: str | None = None,
        upsampler_2: str | None = None,
    ):
        self.device = device
        clip_task = device.load(clip, "clip")
        assert isinstance(clip_task, CLIPTask)
        self.clip = clip_task.requires_grad_(False)
        self.decoder = load(device, decoder, {"clip": clip_task.model})
        if self.decoder.condition(LowResCondition):
            raise RecipeError(f"parts.decoder: {decoder} enlarges pictures; name it as parts.upsampler")
        condition = self.decoder.condition(ClipCondition)
        if condition is None:
            raise RecipeError(f"parts.decoder: {decoder} reads no CLIP embeddings; it draws as a system of type glide")
        self._fits("decoder", decoder, condition.embed_dim)
        self.size = self.decoder.size
        self.upsamplers: list[DecoderTask] = []
        for part, name in (("upsampler", upsampler), ("upsampler_2", upsampler_2)):
            if name:
                task = load(device, name)
                if enlarged(task, self.size) != task.size:
                    raise RecipeError(f"parts.{part}: {name} does not begin with {self.size} px")
                self.upsamplers.append(task)
                self.size = task.size
        self._named = {
            "clip": clip, "decoder": decoder, "prior": prior, "upsampler": upsampler, "upsampler_2": upsampler_2
        }  # fmt: skip

    @cached_property
    def prior(self) -> Any:
        """The prior, loaded where it is needed: pictures are redrawn without it."""
        name = self._named["prior"]
        if not name:
            raise RecipeError("parts.prior: drawing from words needs a prior, and the recipe names none")
        task: Any = checkpoint.load(name, frozen={"clip": self.clip.model}, mmap=self.device.offload)
        if not hasattr(task, "sample") or not hasattr(task.model, "embed_dim"):
            raise RecipeError(f"parts.prior: {name} is no prior that draws CLIP embeddings")
        self._fits("prior", name, task.model.embed_dim)
        return self.device.place(task.requires_grad_(False))

    def _fits(self, part: str, name: str, width: int) -> None:
        own = self.clip.model.embed_dim
        if width != own:
            raise RecipeError(f"parts.{part}: {name} takes embeddings of {width} numbers, and parts.clip gives {own}")

    def files(self, options: Sampling, prior: bool = True) -> dict[str, Path]:
        """The checkpoints that draw, by name; with or without the prior."""
        used = {name: source for name, source in self._named.items() if source and (prior or name != "prior")}
        return {name: checkpoint.resolve(source) for name, source in used.items()}

    # ---- the whole way -------------------------------------------------------------------------------------------

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
        """Pictures, (prompts, candidates, 3, S, S) in [-1, 1], on the CPU; see GLIDE.draw for the arguments."""
        texts = [text for text, own in zip(prompts, seeds) for _ in own]
        flat = [seed for own in seeds for seed in own]
        drawn = []
        for start in range(0, len(texts), batch):
            some, own = texts[start : start + batch], flat[start : start + batch]
            embeddings = self.imagine(some, own, options)
            fresh = self.noise(own)
            pictures = self.decode(embeddings, some, fresh(self.blank(len(some))), options, fresh, see, region)
            drawn.append(self.enlarge(pictures, own, options, region).float().cpu().clamp(-1, 1))
            if watch:
                watch(len(some))
        return torch.cat(drawn).unflatten(0, (len(prompts), -1))

    # ---- its parts -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """CLIP embeddings of texts, (B, e), float32; each distinct text is read once."""
        distinct = list(dict.fromkeys(texts))
        with self.device.turn(self.clip), self.device.autocast(), prepacked(self.clip.model):
            ids = embedding.tokenize(self.clip.model, self.clip.tokenizer, distinct)
            found, _, _ = embedding.read_texts(self.clip.model, ids)
        return found[[distinct.index(text) for text in texts]]

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """CLIP embeddings of square pictures of any size, (B, 3, S, S) in [-1, 1], to (B, e), float32."""
        with self.device.turn(self.clip), self.device.autocast(), prepacked(self.clip.model):
            return embedding.embed_images(self.clip.model, images.to(self.device.name))

    @torch.no_grad()
    def imagine(self, texts: Sequence[str], seeds: Sequence[int], options: Sampling) -> Tensor:
        """The prior's embeddings of pictures that texts describe, (B, e). Raises RecipeError without a prior."""
        own = [seed + Stream.PRIOR for seed in seeds]
        how = {
            "guidance_scale": options.prior_guidance_scale,
            "steps": options.prior_steps,
            "num_samples": options.prior_samples,
        }
        prior = self.prior
        with self.device.turn(prior), self.device.autocast():
            return prior.sample(texts, own, **how).float()

    def noise(self, seeds: Sequence[int]) -> Noise:
        """The random numbers of pictures: first the decoder's x_T, then what its sampler adds."""
        return noise_source(torch.tensor(list(seeds)))

    def blank(self, count: int) -> Tensor:
        """A tensor of the decoder's shape, (count, 3, S, S), for `noise`."""
        return torch.empty(count, 3, self.decoder.size, self.decoder.size)

    def decode(
        self,
        embeddings: Tensor | None,
        texts: Sequence[str],
        noise: Tensor,
        options: Sampling,
        fresh: Noise | None = None,
        see: StepCallback | None = None,
        region: Callable[[int], KnownRegion] | None = None,
        exact: bool = False,
    ) -> Tensor:
        """Pictures of the decoder's size, (B, 3, S, S), from embeddings (B, e), or None for none, and noise x_T.

        fresh: where noise comes from that the sampler adds, for `ddpm` and an eta above 0. exact: along the way of
        `invert`, on which nothing is clamped but what no network of eps knows at the noisy end. region: from a size to
        the part of all pictures that is known.
        """
        if fresh is None and (options.eta or options.sampler == "ddpm"):
            raise ValueError(f"sampler {options.sampler} with eta {options.eta} adds noise and was given none")
        task = self.decoder
        known = known_at(self.device, region, task.size, len(texts))
        told = None if embeddings is None else embeddings.to(self.device.name)
        with self.device.turn(task):
            denoise = task.denoiser(
                texts,
                options.guidance_scale,
                known=known,
                image_embedding=told,
                guidance_interval=options.guidance_interval,
            )
            return run(
                self.device, task, denoise, noise, fresh or torch.zeros_like, options.steps, options.sampler,
                options.eta, options.dynamic_threshold, see=see, clamp=not exact or clamps(task),
            )  # fmt: skip

    def invert(
        self,
        images: Tensor,
        embeddings: Tensor | None,
        texts: Sequence[str],
        steps: str,
        scale: float = 1.0,
        refine: int = 0,
        guided_at: Sequence[int] | None = None,
    ) -> Tensor:
        """The noise x_T of which `decode`, exact, by ddim along the same steps and guidance, makes the same pictures.

        images: (B, 3, S, S) of the decoder's size. refine: see samplers.invert. Ramesh et al. 2022, section 3.
        """
        task = self.decoder
        told = None if embeddings is None else embeddings.to(self.device.name)
        with self.device.turn(task):
            denoise = task.denoiser(texts, scale, image_embedding=told, guidance_interval=guided_at)
            return inverted(self.device, task, denoise, images, steps, refine)

    def enlarge(
        self,
        pictures: Tensor,
        seeds: Sequence[int],
        options: Sampling,
        region: Callable[[int], KnownRegion] | None = None,
    ) -> Tensor:
        """Pictures of the decoder's size through all upsamplers, to (B, 3, `size`, `size`); not rounded, as Karlo's."""
        noise = self.noise([seed + Stream.UPSAMPLER for seed in seeds])
        second = replace(options, up_steps=options.up_steps_2, up_sampler=options.up_sampler_2)
        for task, how in zip(self.upsamplers, (options, second)):
            known = known_at(self.device, region, task.size, len(pictures))
            pictures = enlarge(self.device, task, [""] * len(pictures), pictures, noise, how, known, False)
        return pictures
