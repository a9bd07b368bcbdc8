"""unCLIP (Ramesh et al. 2022): a prior samples CLIP image embeddings from text, a decoder generates images from them.

Besides `generate`, the methods here work on the bipartite latent of an image: its CLIP embedding z_i and the noise x_T
from which the decoder recovers it (section 3). Shapes: B batch, e embedding width, S pixels of the decoder. Embeddings
are CLIP's features before normalization (tasks/embedding.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import checkpoint
from ..models import embedding
from ..nn.noise import Stream, noise_source
from ..registry import RecipeError
from ..tasks.clip import CLIPTask
from ..tasks.decoder import DecoderTask
from ..tasks.prior import PriorTask
from . import systems
from .device import Device
from .diffusion import (
    DiffusionOptions,
    DiffusionSystem,
    NoiseStream,
    SamplerName,
    clips_x0,
    denoise_from,
    invert_images,
    known_at,
    load_base_decoder,
    load_upsampler,
    upsample,
)
from .system import KnownAtSize, OnStep


@dataclass(frozen=True)
class UnCLIPOptions(DiffusionOptions):
    """The `sample` section. guidance_scale: of the decoder, against neither text nor embedding.

    prior_steps: of a diffusion prior. prior_guidance_scale: 1 disables its classifier-free guidance. prior_samples:
    embeddings sampled for an image; the nearest to the text's is used. ..._2: of the second upsampler.
    """

    prior_steps: str = "25"
    prior_guidance_scale: float = 1.0
    prior_samples: int = 2
    up_steps_2: str = "15"
    up_sampler_2: SamplerName = "ddim"

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.prior_guidance_scale < 1000:
            raise RecipeError(f"prior_guidance_scale {self.prior_guidance_scale} is not between 0 and 1000")
        if not 1 <= self.prior_samples <= 1024:
            raise RecipeError(f"prior_samples {self.prior_samples} is not between 1 and 1024")

    def step_options(self) -> tuple[str, ...]:
        return *super().step_options(), self.prior_steps, self.up_steps_2


@systems.register("unclip")
class UnCLIP(DiffusionSystem):
    """Generates images from prompts or from CLIP embeddings. All parts are checkpoints.

    clip: the CLIP that embeds texts for the prior and whose image embeddings the decoder reads. prior: any task that
    samples image embeddings; without one, images can only be generated from embeddings.
    """

    options_type = UnCLIPOptions
    has_latents = True

    @staticmethod
    def check(options: UnCLIPOptions, parts: Mapping[str, Any]) -> None:
        """Raise RecipeError for a second upsampler without a first."""
        if parts.get("upsampler_2") and not parts.get("upsampler"):
            raise RecipeError("parts.upsampler_2 enlarges the output of parts.upsampler, and the recipe names none")

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
        self.decoder = load_base_decoder(device, decoder, {"clip": clip_task.model})
        if self.decoder.image_embed_dim is None:
            raise RecipeError(f"parts.decoder: {decoder} reads no CLIP embeddings; use it in a system of type glide")
        self._check_width("decoder", decoder, self.decoder.image_embed_dim)
        self.size = self.decoder.size
        self.upsamplers: list[DecoderTask] = []
        for part, name in (("upsampler", upsampler), ("upsampler_2", upsampler_2)):
            if name:
                self.upsamplers.append(load_upsampler(device, part, name, self.size))
                self.size = self.upsamplers[-1].size
        self._sources = {
            "clip": clip, "decoder": decoder, "prior": prior, "upsampler": upsampler, "upsampler_2": upsampler_2
        }  # fmt: skip

    @cached_property
    def prior(self) -> PriorTask:
        """The prior, loaded when it is first used. Raises RecipeError if the recipe names none."""
        name = self._sources["prior"]
        if not name:
            raise RecipeError("parts.prior: generating from text needs a prior, and the recipe names none")
        task: Any = checkpoint.load(name, frozen={"clip": self.clip.model}, mmap=self.device.offload)
        if not isinstance(task, PriorTask):
            raise RecipeError(f"parts.prior: {name} is not a prior over CLIP embeddings")
        self._check_width("prior", name, task.model.embed_dim)
        self.device.place(task.requires_grad_(False))
        return task

    def _check_width(self, part: str, name: str, width: int) -> None:
        embed_dim = self.clip.model.embed_dim
        if width != embed_dim:
            raise RecipeError(
                f"parts.{part}: {name} takes embeddings of {width} numbers, and parts.clip gives {embed_dim}"
            )

    def checkpoints(self, options: UnCLIPOptions, prior: bool = True) -> dict[str, Path]:
        """See System.checkpoints; with or without the prior."""
        used = {part: source for part, source in self._sources.items() if source and (prior or part != "prior")}
        return {part: checkpoint.resolve(source) for part, source in used.items()}

    def generate_batch(
        self,
        texts: list[str],
        seeds: list[int],
        options: UnCLIPOptions,
        on_step: OnStep | None,
        known_region: KnownAtSize | None,
    ) -> Tensor:
        """See DiffusionSystem.generate_batch."""
        embeddings = self.sample_embeddings(texts, seeds, options)
        noise = self.noise(seeds)
        x = noise(self.blank(len(texts)))
        images = self.decode(embeddings, texts, x, options, noise, on_step, known_region)
        return self.upsample(images, seeds, options, known_region)

    def reconstruct(self, images: Tensor, texts: Sequence[str], options: UnCLIPOptions, iters: int) -> Tensor:
        """See DiffusionSystem.reconstruct; the decoder reads the images' embeddings and no text."""
        z, no_texts = self.embed_images(images), [""] * len(texts)
        x = self.invert(images, z, no_texts, options.steps, iters=iters)
        return self.decode(z, no_texts, x, options, exact=True)

    # ---- stages --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return CLIP embeddings of texts, (B, e), float32; each distinct text is encoded once."""
        distinct = list(dict.fromkeys(texts))
        with self.device.inference(self.clip):
            ids = embedding.tokenize(self.clip.model, self.clip.tokenizer, distinct)
            features, _, _ = embedding.read_texts(self.clip.model, ids)
        return features[[distinct.index(text) for text in texts]]

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Return CLIP embeddings of square images of any size, (B, 3, S, S) in [-1, 1], to (B, e), float32."""
        with self.device.inference(self.clip):
            return embedding.embed_images(self.clip.model, images.to(self.device.name))

    @torch.no_grad()
    def sample_embeddings(self, texts: Sequence[str], seeds: Sequence[int], options: UnCLIPOptions) -> Tensor:
        """Return image embeddings that the prior samples for texts, (B, e). Raises RecipeError without a prior."""
        prior = self.prior
        with self.device.inference(prior, prepack=False):
            return prior.sample(
                texts,
                [seed + Stream.PRIOR for seed in seeds],
                guidance_scale=options.prior_guidance_scale,
                steps=options.prior_steps,
                num_samples=options.prior_samples,
            ).float()

    def noise(self, seeds: Sequence[int]) -> NoiseStream:
        """Return the random stream of images: first the decoder's x_T, then the noise that its sampler adds."""
        return noise_source(torch.tensor(list(seeds)))

    def blank(self, count: int) -> Tensor:
        """Return a tensor of the decoder's shape, (count, 3, S, S), for `noise`."""
        return torch.empty(count, 3, self.decoder.size, self.decoder.size)

    def decode(
        self,
        embeddings: Tensor | None,
        texts: Sequence[str],
        x: Tensor,
        options: UnCLIPOptions,
        noise: NoiseStream | None = None,
        on_step: OnStep | None = None,
        known_region: KnownAtSize | None = None,
        exact: bool = False,
    ) -> Tensor:
        """Return images of the decoder's size, (B, 3, S, S), from embeddings (B, e), or None for none, and x_T.

        noise: for samplers that add noise, `ddpm` and an eta above 0. exact: the reverse of `invert`: x0 is clipped
        only where the network predicts eps.
        """
        if noise is None and (options.eta or options.sampler == "ddpm"):
            raise ValueError(f"sampler {options.sampler} with eta {options.eta} needs a noise stream")
        task = self.decoder
        known = known_at(self.device, known_region, task.size, len(texts))
        z = None if embeddings is None else embeddings.to(self.device.name)
        with self.device.turn(task):
            denoise = task.denoiser(
                texts,
                options.guidance_scale,
                known=known,
                image_embedding=z,
                guidance_interval=options.guidance_interval,
            )
            return denoise_from(
                self.device, task, denoise, x, noise or torch.zeros_like, options.steps, options.sampler, options.eta,
                options.dynamic_threshold, on_step=on_step, clip=not exact or clips_x0(task),
            )  # fmt: skip

    def invert(
        self,
        images: Tensor,
        embeddings: Tensor | None,
        texts: Sequence[str],
        steps: str,
        guidance_scale: float = 1.0,
        iters: int = 0,
        guidance_interval: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the noise x_T from which `decode`, exact, by DDIM with the same steps and guidance, recovers images.

        images: (B, 3, S, S) of the decoder's size. iters: see samplers.invert. Ramesh et al. 2022, section 3.
        """
        task = self.decoder
        z = None if embeddings is None else embeddings.to(self.device.name)
        with self.device.turn(task):
            denoise = task.denoiser(texts, guidance_scale, image_embedding=z, guidance_interval=guidance_interval)
            return invert_images(self.device, task, denoise, images, steps, iters)

    def upsample(
        self,
        images: Tensor,
        seeds: Sequence[int],
        options: UnCLIPOptions,
        known_region: KnownAtSize | None = None,
    ) -> Tensor:
        """Return images of the decoder's size enlarged by all upsamplers, (B, 3, `size`, `size`).

        Inputs are not rounded to 8 bits, as in Karlo.
        """
        noise = self.noise([seed + Stream.UPSAMPLER for seed in seeds])
        second = replace(options, up_steps=options.up_steps_2, up_sampler=options.up_sampler_2)
        for task, stage_options in zip(self.upsamplers, (options, second)):
            known = known_at(self.device, known_region, task.size, len(images))
            images = upsample(
                self.device, task, [""] * len(images), images, noise, stage_options, known, round_input=False
            )
        return images
