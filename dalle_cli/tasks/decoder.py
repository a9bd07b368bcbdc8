"""Training decoders: networks that draw by diffusion from texts, labels, small pictures or parts of pictures.

GLIDE's base, its upsampler, and the two that inpaint (Nichol et al. 2022, section 2); ADM's models of classes (Dhariwal
and Nichol 2021); unCLIP's decoder and upsamplers (Ramesh et al. 2022, section 2.1). What a decoder is told is what its
model's conditions are. Shapes: B batch, S pixels, e width of a CLIP embedding.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.degradations import reduced
from ..diffusion.guidance import classifier_free, in_interval, threshold
from ..diffusion.guidance import keep_known as keep_known
from ..diffusion.loss import diffusion_loss
from ..diffusion.process import Denoiser, PredictionType, Variance
from ..diffusion.respacing import timesteps
from ..diffusion.samplers import ddim
from ..images import to_float
from ..models.clip import CLIP
from ..models.conditions import (
    ClipCondition,
    ClipTextCondition,
    Condition,
    InpaintCondition,
    LabelCondition,
    LowResCondition,
    TextCondition,
    merge,
)
from ..models.unet import UNet
from ..nn.noise import noise_source
from ..nn.prepacked import prepacked
from ..registry import RecipeError
from ..text.tokenizer import Tokenizer
from . import embedding, tasks
from .base import Preview, Task
from .collators import DecoderCollator, LabelCollator, Texts, check_side
from .labels import check_class_names, class_labels
from .noising import Schedule, add_noise, check_timestep_shift, make_process

KnownRegion = tuple[Tensor, Tensor]
"""A picture, (B, 3, S, S), and where it is known, (B, 1, S, S), 1 for known and 0 for unknown."""

Degradation = Literal["blur", "bsr"]
PREVIEW_STEPS, PREVIEW_SCALE = "25", 3.0
DIFFUSION_MODELS = ("unet", "two-stage-unet")  # types of models that draw by diffusion


@tasks.register("decoder")
class DecoderTask(Task):
    """The error of what the network predicts of noisy pictures, and the bound that teaches a learned variance.

    size: pixels of the images. crop_fraction: fraction of their side that is trained on, at random places. schedule,
    steps, prediction_type, variance: the diffusion process. timestep_shift: over 1, training sees more of the steps
    that hide most of the picture. text_drop_prob, image_drop_prob: shares of captions and of CLIP's picture embeddings
    left out, for classifier-free guidance. full_mask_prob: share of pictures of which one that learns to inpaint is
    shown nothing. classes: names of a label's classes, in order; without them captions are numbers. max_blur,
    max_noise: greatest ones on an upsampler's small picture (degradations.py); degradation: `bsr` for more ways than
    those (bsr.py). clip: the frozen CLIP that reads the texts of a `clip-text-condition` and embeds the pictures,
    larger ones where data have them, unless data bring embeddings.
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
        self.process, self.timestep_shift = (
            make_process(schedule, steps, prediction_type, variance),
            check_timestep_shift(timestep_shift),
        )
        if not 0 < crop_fraction <= 1:
            raise ValueError(f"task.crop_fraction: {crop_fraction} is not in (0, 1]")
        for name, side in (("size", size), ("crop_fraction", self.side)):
            if side % model.factor:
                raise ValueError(f"task.{name}: {side} does not divide by {model.factor}, as the model's levels ask")
        if variance.startswith("learned") != model.learned_variance:
            raise ValueError(f"task.variance: '{variance}' needs model.learned_variance={not model.learned_variance}")
        for name, condition in model.conditions.items():
            self._check(name, condition)

    def _check(self, name: str, condition: Condition) -> None:
        """Raises ValueError for a condition that this task cannot serve."""
        if isinstance(condition, TextCondition):
            if self.tokenizer is None:
                raise ValueError("tokenizer: a model that reads text needs one")
            if self.tokenizer.vocab_size > condition.vocab_size:
                had = self.tokenizer.vocab_size
                raise ValueError(
                    f"model.conditions.{name}.vocab_size: {condition.vocab_size} is less than the tokenizer's {had}"
                )
        elif isinstance(condition, LabelCondition):
            check_class_names(self.classes, condition.classes)
        elif isinstance(condition, LowResCondition):
            if self.side % condition.factor:
                raise ValueError(f"task.size: {self.side} does not divide by the small picture's {condition.factor}")
        elif isinstance(condition, ClipCondition | ClipTextCondition):
            if self.clip is None:
                return  # the data bring embeddings, or whoever draws brings the CLIP
            if self.clip.embed_dim != condition.embed_dim:
                raise ValueError(
                    f"model.conditions.{name}.embed_dim: {condition.embed_dim}, and frozen.clip has "
                    f"{self.clip.embed_dim}"
                )
            if isinstance(condition, ClipTextCondition):
                embedding.check_tokenizer(self.clip, self.tokenizer)
                own = condition.token_embedding
                if own and own.num_embeddings < self.tokenizer.vocab_size:
                    had = self.tokenizer.vocab_size
                    raise ValueError(
                        f"model.conditions.{name}.vocab_size: {own.num_embeddings} is less than the tokenizer's {had}"
                    )
        elif not isinstance(condition, InpaintCondition):
            raise ValueError(f"model.conditions.{name}: task 'decoder' has nothing for a {type(condition).__name__}")

    def condition(self, kind: type[Condition]) -> Any:
        """The model's condition of a kind, or None."""
        return next((one for one in self.model.conditions.values() if isinstance(one, kind)), None)

    # ---- training ------------------------------------------------------------------------------------------------

    def collator(self, held_out: bool = False) -> DecoderCollator:
        text, clip_text = self.condition(TextCondition), self.condition(ClipTextCondition)
        label, small = self.condition(LabelCondition), self.condition(LowResCondition)
        return DecoderCollator(
            self.size, self.side, self.text_drop_prob, self.image_drop_prob, self.full_mask_prob,
            texts=Texts(self.tokenizer, text.context_length) if text else None,
            clip_texts=embedding.texts_of(self._needed(), self.tokenizer) if clip_text else None,
            labels=LabelCollator(self.classes, label.classes) if label else None,
            known_regions=self.condition(InpaintCondition) is not None,
            clip_embedding=self.condition(ClipCondition) is not None,
            degraded=small.factor if small and self.degradation == "bsr" else None,
        )  # fmt: skip

    def example(self, count: int, size: int) -> dict:
        batch = super().example(count, self.side if size == self.size else size)
        if condition := self.condition(TextCondition):
            batch["ids"] = torch.zeros(count, condition.context_length, dtype=torch.int64)
            batch["real"] = batch["ids"].bool()
        if self.condition(ClipTextCondition):
            text: Any = self._needed().text
            batch["clip_ids"] = torch.zeros(count, text.context_length, dtype=torch.int64)
            batch["clip_real"] = batch["clip_ids"].bool()
        if (condition := self.condition(LowResCondition)) and self.degradation == "bsr":
            small = self.side // condition.factor
            batch["small"] = torch.zeros(count, 3, small, small, dtype=torch.uint8)
        label, mask = torch.zeros(count, dtype=torch.int64), torch.zeros(count, 1, self.side, self.side)
        told = {"keep": torch.ones(count, dtype=torch.bool), "told": torch.arange(count)}
        return {**batch, **told, "label": label, "known": mask}

    def forward(self, batch: dict, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = self._picture(batch)
        x, t, eps = add_noise(self.process, image, batch["seed"], self.timestep_shift)
        output = self.model(x, t, **self.model.encode(**self._given(batch)))
        each = diffusion_loss(self.process, output, image, t, eps)
        logs = {"mse": each.mse.mean()}
        if each.bound is not None:
            logs["bound"] = each.bound.mean()
        return each.total.mean(), logs

    def _picture(self, batch: dict) -> Tensor:
        """The pictures as they are drawn; those that a CLIP reads may be larger."""
        image = batch.get("image")
        if image is None:
            raise RecipeError("data: a decoder needs pictures beside their embeddings: `dalle embed --pictures`")
        if image.shape[-1] > self.side and self.condition(ClipCondition):
            return F.interpolate(image, self.side, mode="bicubic", antialias=True).clamp(-1, 1)
        check_side(image, self.side, self.size)
        return image

    def _given(self, batch: dict) -> dict[str, Any]:
        """What each condition of the model is called with in training."""
        given: dict[str, Any] = {}
        for name, condition in self.model.conditions.items():
            if isinstance(condition, TextCondition):
                given[name] = batch["ids"], batch["real"]
            elif isinstance(condition, ClipTextCondition):
                given[name] = self._told((batch["clip_ids"], batch["clip_real"]))
            elif isinstance(condition, ClipCondition):
                given[name] = self._embedding(batch, batch["told"]), batch["keep"]
            elif isinstance(condition, LabelCondition):
                given[name] = batch["label"]
            elif isinstance(condition, LowResCondition):
                given[name] = self._small(batch)
            else:
                given[name] = self._picture(batch), batch["known"]
        return given

    def _small(self, batch: dict) -> Tensor:
        if "small" in batch:
            return to_float(batch["small"])
        return reduced(
            batch["image"], self.condition(LowResCondition).factor, batch["seed"], self.max_blur, self.max_noise
        )

    def _embedding(self, batch: dict, told: Tensor) -> Tensor:
        """CLIP's embeddings of pictures, (B, e), those in the rows `told`: what the data bring, else the frozen CLIP's.

        Zeros in other rows: most are left out in training, and embedding them takes a tenth of a step.
        """
        if "embedding" in batch:
            return batch["embedding"]
        clip, image = self._needed(), batch["image"]
        result = torch.zeros(len(image), clip.embed_dim, device=image.device)
        if len(told):
            result[told] = embedding.embed_images(clip, image[told])
        return result

    def _told(self, packed: embedding.Tokens) -> tuple[Tensor, ...]:
        """What a ClipTextCondition is called with."""
        return *embedding.read_texts(self._needed(), packed), packed[0].to(self.device)

    def _needed(self) -> CLIP:
        if self.clip is None:
            raise RecipeError("frozen.clip: name the CLIP that this decoder's embeddings come from")
        return self.clip

    # ---- drawing -------------------------------------------------------------------------------------------------

    def denoiser(
        self,
        texts: Sequence[str],
        guidance_scale: float = 1.0,
        low_res: Tensor | None = None,
        known: KnownRegion | None = None,
        image_embedding: Tensor | None = None,
        guidance_interval: Sequence[int] | None = None,
    ) -> Denoiser:
        """What the network expects of as many noisy pictures as there are texts, each text read once.

        guidance_scale: classifier-free guidance, 1 for none; guidance_interval: the first and the last time that is
        guided, None for all. low_res: (B, 3, s, s), for an upsampler. known: what is known of the pictures; it is told
        to a network that inpaints, and kept in what any other expects. image_embedding: CLIP embeddings (B, e), for a
        decoder that reads them; None leaves them out, as guidance does. Raises ValueError for guidance where nothing
        can be left out, and for an upsampler without small pictures.
        """
        guided = guidance_scale != 1.0
        if guided and not any(map(self.condition, (TextCondition, ClipTextCondition, ClipCondition))):
            raise ValueError(
                f"guidance_scale {guidance_scale}: guidance needs a decoder that reads text; leave it at 1"
            )
        twice = 2 if guided else 1
        rows = [*texts, *[""] * len(texts)] if guided else list(texts)
        parts = []
        with torch.no_grad(), prepacked(self.model), prepacked(*filter(None, [self.clip])):
            for condition in self.model.conditions.values():
                if isinstance(condition, LowResCondition):
                    if low_res is None:
                        raise ValueError("this decoder enlarges pictures and was given none")
                    parts.append(condition(low_res.repeat(twice, 1, 1, 1)))
                elif isinstance(condition, InpaintCondition):
                    nothing = torch.zeros(len(texts), 4, self.size, self.size, device=self.device)
                    pixels, mask = known or (nothing[:, :3], nothing[:, 3:])
                    parts.append(condition(pixels.repeat(twice, 1, 1, 1), mask.repeat(twice, 1, 1, 1)))
                elif isinstance(condition, ClipCondition):
                    own = (
                        image_embedding if image_embedding is not None else torch.zeros(len(texts), condition.embed_dim)
                    )
                    keep = torch.arange(len(rows), device=self.device) < (0 if image_embedding is None else len(texts))
                    parts.append(condition(own.to(self.device).repeat(twice, 1), keep))
                else:
                    parts.append(self._read(condition, rows))
        told = merge(parts)
        denoise = self.process.denoiser(self.model, **told)
        if guided:
            denoise = classifier_free(denoise, guidance_scale)
        if guided and guidance_interval:
            wanted = {name: value[: len(texts)] for name, value in told.items()}
            denoise = in_interval(denoise, self.process.denoiser(self.model, **wanted), *guidance_interval)
        return keep_known(denoise, *known) if known else denoise

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def _read(self, condition: Condition, texts: Sequence[str]) -> dict[str, Tensor]:
        """What a condition makes of texts, (B, ...): each distinct one is read once."""
        distinct = list(dict.fromkeys(texts))
        if isinstance(condition, TextCondition):
            ids, real = self._pack(distinct)
            told = condition(ids.to(self.device), real.to(self.device))
        elif isinstance(condition, ClipTextCondition):
            told = condition(*self._told(embedding.tokenize(self._needed(), self.tokenizer, distinct)))
        else:
            assert isinstance(condition, LabelCondition)
            told = condition(class_labels(distinct, self.classes, condition.classes).to(self.device))
        rows = torch.tensor([distinct.index(text) for text in texts], device=self.device)
        return {name: value[rows] for name, value in told.items()}

    def _pack(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        assert self.tokenizer is not None
        ids, real = self.tokenizer.pack(texts, self.condition(TextCondition).context_length)
        return torch.from_numpy(ids), torch.from_numpy(real)

    def preview(self, batch: dict) -> Preview:
        """A picture of each held-out caption; of an upsampler, the small picture, the drawn and the true one below."""
        image, texts = self._picture(batch), batch["text"]
        small = self._small(batch) if self.condition(LowResCondition) else None
        region = (image, batch["known"]) if "known" in batch else None
        told = self._embedding(batch, torch.arange(len(image))) if self.condition(ClipCondition) else None
        guided = self.text_drop_prob and (self.condition(TextCondition) or self.condition(ClipTextCondition))
        denoise = threshold(self.denoiser(texts, PREVIEW_SCALE if guided else 1.0, small, region, told))
        noise = noise_source(batch["seed"])(image)
        drawn = ddim(self.process, denoise, noise, timesteps(PREVIEW_STEPS, len(self.process)))
        if region:
            shown = image * batch["known"]
        elif small is not None:
            shown = F.interpolate(small, image.shape[-2:])
        else:
            return [*drawn], texts, None
        return [*shown, *drawn, *image], None, len(image)
