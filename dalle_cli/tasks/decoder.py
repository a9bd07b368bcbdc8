"""Training decoders: networks that generate images by diffusion from texts, labels, small images or parts of images.

GLIDE's base, its upsampler, and the two that inpaint (Nichol et al. 2022, section 2); ADM's class-conditional models
(Dhariwal & Nichol 2021); unCLIP's decoder and upsamplers (Ramesh et al. 2022, section 2.1). The conditions of the model
say what a decoder is conditioned on. Shapes: B batch, S pixels, e width of a CLIP embedding.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import bsr_degradation
from ..data.degradations import downsample
from ..diffusion.guidance import classifier_free, in_interval, keep_known, threshold
from ..diffusion.loss import diffusion_loss
from ..diffusion.process import Denoiser, PredictionType, Variance
from ..diffusion.respacing import timesteps
from ..diffusion.samplers import ddim
from ..models.clip import CLIP
from ..models.conditions.base import KnownRegion, Request, Resources, merge
from ..models.unet import UNet
from ..nn.noise import noise_source
from ..nn.prepacked import prepacked
from ..registry import RecipeError
from ..text.tokenizer import Tokenizer
from . import tasks
from .base import Preview, Task
from .collators import DecoderCollator, check_side
from .noising import Schedule, add_noise, check_timestep_shift, make_process

Degradation = Literal["blur", "bsr"]
PREVIEW_STEPS, PREVIEW_GUIDANCE_SCALE = "25", 3.0
DIFFUSION_MODELS = ("unet", "two-stage-unet")  # types of models that generate by diffusion


@tasks.register("decoder")
class DecoderTask(Task):
    """The error of what the network predicts of noisy images, and the bound that teaches a learned variance.

    size: pixels of the images. crop_fraction: fraction of their side that is trained on, at random positions. schedule,
    steps, prediction_type, variance: the diffusion process. timestep_shift: above 1, training sees more of the noisy
    steps. text_drop_prob, image_drop_prob: fractions of captions and of CLIP image embeddings that are dropped, for
    classifier-free guidance. full_mask_prob: fraction of images of which an inpainting network sees nothing. classes:
    names of the labels, in order; without them captions are numbers. max_blur, max_noise: maximum deviations of an
    upsampler's small image (data/degradations.py); degradation: `bsr` for more kinds (data/bsr_degradation.py). clip:
    the frozen CLIP that encodes texts and images for conditions that need it, unless data bring embeddings; it may read
    larger images than are generated.
    """

    model: UNet

    def __init__(
        self,
        model: UNet,
        size: int,
        tokenizer: Tokenizer | None = None,
        clip: CLIP | None = None,
        schedule: Schedule = "cosine",
        steps: int = 1000,
        prediction_type: PredictionType = "eps",
        variance: Variance = "learned-range",
        timestep_shift: float = 1.0,
        text_drop_prob: float = 0.0,
        image_drop_prob: float = 0.0,
        full_mask_prob: float = 0.1,
        classes: list[str] | None = None,
        max_blur: float = 0.0,
        max_noise: float = 0.0,
        degradation: Degradation = "blur",
        crop_fraction: float = 1.0,
    ):
        super().__init__(model, tokenizer)
        self.clip = clip
        self.size, self.side, self.classes = size, round(crop_fraction * size), classes
        self.text_drop_prob, self.image_drop_prob, self.full_mask_prob = text_drop_prob, image_drop_prob, full_mask_prob
        self.max_blur, self.max_noise, self.degradation = max_blur, max_noise, degradation
        self.process = make_process(schedule, steps, prediction_type, variance)
        self.timestep_shift = check_timestep_shift(timestep_shift)
        if not 0 < crop_fraction <= 1:
            raise ValueError(f"task.crop_fraction: {crop_fraction} is not in (0, 1]")
        for name, side in (("size", size), ("crop_fraction", self.side)):
            if side % model.factor:
                raise ValueError(f"task.{name}: {side} does not divide by {model.factor}, as the model's levels need")
        if variance.startswith("learned") != model.learned_variance:
            raise ValueError(f"task.variance: '{variance}' needs model.learned_variance={not model.learned_variance}")
        for name, condition in model.conditions.items():
            condition.check(f"model.conditions.{name}", self.resources)

    @property
    def resources(self) -> Resources:
        """What the conditions of the model work with."""
        downscale = partial(_downscale, max_blur=self.max_blur, max_noise=self.max_noise)
        degrade = bsr_degradation.degrade if self.degradation == "bsr" else None
        return Resources(self.side, self.tokenizer, self.clip, self.classes, degrade, downscale)

    @property
    def conditions(self) -> list[Any]:
        return list(self.model.conditions.values())

    # ---- capabilities ------------------------------------------------------------------------------------------------

    @property
    def reads_text(self) -> bool:
        """Whether texts change what is generated."""
        return any(one.reads_text and (self.clip is not None or not one.needs_clip) for one in self.conditions)

    @property
    def inpaints(self) -> bool:
        """Whether the network takes a known region as input."""
        return any(one.inpaints for one in self.conditions)

    @property
    def low_res_factor(self) -> int | None:
        """How much smaller the image is that an upsampler enlarges; None for others."""
        return next((one.low_res_factor for one in self.conditions if one.low_res_factor), None)

    @property
    def image_embed_dim(self) -> int | None:
        """Width of the CLIP image embeddings that the network reads; None for others."""
        return next((one.image_embed_dim for one in self.conditions if one.image_embed_dim), None)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    # ---- training ----------------------------------------------------------------------------------------------------

    def collator(self, held_out: bool = False) -> DecoderCollator:
        parts = (condition.collate(self.resources) for condition in self.conditions)
        return DecoderCollator(
            self.size, self.side, self.text_drop_prob, self.image_drop_prob, self.full_mask_prob,
            tuple(part for part in parts if part),
        )  # fmt: skip

    def example(self, count: int, size: int) -> dict:
        batch = super().example(count, self.side if size == self.size else size)
        for condition in self.conditions:
            batch |= condition.example(count, self.resources)
        return batch

    def forward(self, batch: dict, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = self._target(batch)
        x, t, eps = add_noise(self.process, image, batch["seed"], self.timestep_shift)
        output = self.model(x, t, **self.model.encode(**self._inputs({**batch, "target": image})))
        each = diffusion_loss(self.process, output, image, t, eps)
        logs = {"mse": each.mse.mean()}
        if each.bound is not None:
            logs["bound"] = each.bound.mean()
        return each.total.mean(), logs

    def _inputs(self, batch: dict) -> dict[str, tuple]:
        """Return what each condition of the model is called with in training."""
        return {name: condition.inputs(batch, self.resources) for name, condition in self.model.conditions.items()}

    def _target(self, batch: dict) -> Tensor:
        """Return the images at the size of the network; those that a CLIP reads may be larger."""
        image = batch.get("image")
        if image is None:
            raise RecipeError("data: a decoder needs images besides their embeddings: `dalle embed --store-images`")
        if image.shape[-1] > self.side and self.image_embed_dim:
            return F.interpolate(image, self.side, mode="bicubic", antialias=True).clamp(-1, 1)
        check_side(image, self.side, self.size)
        return image

    # ---- generation --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def denoiser(
        self,
        texts: Sequence[str],
        guidance_scale: float = 1.0,
        low_res: Tensor | None = None,
        known: KnownRegion | None = None,
        image_embedding: Tensor | None = None,
        guidance_interval: Sequence[int] | None = None,
    ) -> Denoiser:
        """Return the denoiser of as many noisy images as there are texts, each text encoded once.

        guidance_scale: of classifier-free guidance, 1 for none; guidance_interval: the first and the last timestep that
        is guided, None for all. low_res: (B, 3, s, s), for an upsampler. known: the known region of the images; it is
        an input of a network that inpaints, and is kept in what any other predicts. image_embedding: CLIP's (B, e), for
        a decoder that reads it; None drops it, as guidance does. Raises ValueError for guidance if no condition has a
        null value, and for an upsampler without small images.
        """
        guided = guidance_scale != 1.0
        if guided and not any(condition.has_null for condition in self.conditions):
            raise ValueError(
                f"guidance_scale {guidance_scale}: guidance needs a decoder that is conditioned on text; leave it at 1"
            )
        request = Request(texts, guided, self.size, self.device, low_res, known, image_embedding)
        with prepacked(self.model), prepacked(*filter(None, [self.clip])):
            encoded = merge([condition.encode(request, self.resources) for condition in self.conditions])
        denoise = self.process.denoiser(self.model, **encoded)
        if guided:
            denoise = classifier_free(denoise, guidance_scale)
        if guided and guidance_interval:
            cond = {name: value[: len(texts)] for name, value in encoded.items()}
            denoise = in_interval(denoise, self.process.denoiser(self.model, **cond), *guidance_interval)
        return keep_known(denoise, *known) if known else denoise

    def preview(self, batch: dict) -> Preview:
        """Return an image of each held-out caption; of an upsampler the small image, the generated and the true one."""
        image, texts, resources = self._target(batch), batch["text"], self.resources
        fields: dict[str, Any] = {}
        for condition in self.conditions:
            fields |= condition.request(batch, image, resources)
        guided = self.text_drop_prob and any(condition.reads_text for condition in self.conditions)
        denoise = threshold(self.denoiser(texts, PREVIEW_GUIDANCE_SCALE if guided else 1.0, **fields))
        noise = noise_source(batch["seed"])(image)
        generated = ddim(self.process, denoise, noise, timesteps(PREVIEW_STEPS, len(self.process)))
        shown = (condition.preview(batch, image, resources) for condition in self.conditions)
        given = next((one for one in shown if one is not None), None)
        if given is None:
            return [*generated], texts, None
        return [*given, *generated, *image], None, len(image)


def _downscale(image: Tensor, factor: int, seeds: Tensor, max_blur: float, max_noise: float) -> Tensor:
    return downsample(image, factor, seeds, max_blur, max_noise)
