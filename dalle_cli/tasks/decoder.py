"""Training decoders: networks that draw by diffusion from texts, labels, small pictures or parts of pictures.

GLIDE's base, its upsampler, and the two that inpaint (Nichol et al. 2022, section 2); ADM's models of classes (Dhariwal
and Nichol 2021). What a decoder is told is what its model's conditions are. Shapes: B batch, S pixels.
"""

import random
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.loader import stack
from ..diffusion.guidance import classifier_free, keep, threshold
from ..diffusion.loss import loss
from ..diffusion.process import Denoiser, Predict, Variance
from ..diffusion.respacing import timesteps
from ..diffusion.samplers import ddim
from ..models.conditions import Condition, InpaintCondition, LabelCondition, LowResCondition, TextCondition, merge
from ..models.unet import UNet
from ..nn.noise import stream
from ..text.tokenizer import Tokenizer
from . import tasks
from .base import Preview, Task
from .degradations import known, reduced
from .labels import check, labels
from .noising import Schedule, noised, process

Known = tuple[Tensor, Tensor]
"""A picture, (B, 3, S, S), and where it is known, (B, 1, S, S), 1 for known and 0 for unknown."""

PREVIEW_STEPS, PREVIEW_SCALE = "25", 3.0


@tasks.register("decoder")
class DecoderTask(Task):
    """The error of what the network predicts of noisy pictures, and the bound that teaches a learned variance.

    size: pixels of the pictures. schedule, steps, predict, variance: the diffusion process. drop_text: share of
    captions left out, for classifier-free guidance. classes: names of a label's classes, in order; without them
    captions are numbers. blur, noise: greatest ones on an upsampler's small picture (degradations.py).
    """

    model: UNet

    def __init__(
        self,
        model: UNet,
        size: int,
        tokenizer: Tokenizer | None = None,
        schedule: Schedule = "cosine",
        steps: int = 1000,
        predict: Predict = "eps",
        variance: Variance = "learned-range",
        drop_text: float = 0.0,
        classes: list[str] | None = None,
        blur: float = 0.0,
        noise: float = 0.0,
    ):
        super().__init__(model, tokenizer)
        self.size, self.drop_text, self.classes = size, drop_text, classes
        self.blur, self.noise = blur, noise
        self.process = process(schedule, steps, predict, variance)
        if size % model.factor:
            raise ValueError(f"task.size: {size} does not divide by {model.factor}, as the model's levels ask")
        if variance.startswith("learned") != model.learned_variance:
            raise ValueError(f"task.variance: '{variance}' needs model.learned_variance={not model.learned_variance}")
        for name, condition in model.conditions.items():
            if not isinstance(condition, TextCondition | LabelCondition | LowResCondition | InpaintCondition):
                raise ValueError(
                    f"model.conditions.{name}: task 'decoder' has nothing for a {type(condition).__name__}"
                )
            if isinstance(condition, TextCondition):
                if tokenizer is None:
                    raise ValueError("tokenizer: a model that reads text needs one")
                if tokenizer.vocab_size > condition.vocab:
                    had = tokenizer.vocab_size
                    raise ValueError(
                        f"model.conditions.{name}.vocab: {condition.vocab} is less than the tokenizer's {had}"
                    )
            if isinstance(condition, LabelCondition):
                check(classes, condition.classes)
            if isinstance(condition, LowResCondition) and size % condition.factor:
                raise ValueError(f"task.size: {size} does not divide by the small picture's {condition.factor}")

    def condition(self, kind: type[Condition]) -> Any:
        """The model's condition of a kind, or None."""
        return next((one for one in self.model.conditions.values() if isinstance(one, kind)), None)

    # ---- training ------------------------------------------------------------------------------------------------

    def collate(self, samples: list[dict]) -> dict:
        """Tokenise and erase; every random choice comes from the sample's own seed."""
        batch = stack(samples)
        texts, masks = [], []
        for sample in samples:
            rng = random.Random(sample["seed"])
            texts.append("" if rng.random() < self.drop_text else sample["text"])
            masks.append(known(self.size, rng))
        if self.condition(TextCondition):
            batch["ids"], batch["real"] = self._pack(texts)
        if condition := self.condition(LabelCondition):
            batch["label"] = labels(batch["text"], self.classes, condition.classes)
        if self.condition(InpaintCondition):
            batch["known"] = torch.stack(masks)
        return batch

    def example(self, count: int, size: int) -> dict:
        batch = super().example(count, size)
        if condition := self.condition(TextCondition):
            batch["ids"] = torch.zeros(count, condition.length, dtype=torch.int64)
            batch["real"] = batch["ids"].bool()
        return {**batch, "label": torch.zeros(count, dtype=torch.int64), "known": torch.zeros(count, 1, size, size)}

    def forward(self, batch: dict, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = batch["image"]
        if image.shape[-1] != self.size:
            raise ValueError(f"the decoder draws {self.size} px, not {image.shape[-1]}: set data.size={self.size}")
        x, t, eps = noised(self.process, image, batch["seed"])
        output = self.model(x, t, **self.model.encode(**self._given(batch)))
        each = loss(self.process, output, image, t, eps)
        logs = {"mse": each.mse.mean()}
        if each.bound is not None:
            logs["bound"] = each.bound.mean()
        return each.total.mean(), logs

    def _given(self, batch: dict) -> dict[str, Any]:
        """What each condition of the model is called with in training."""
        given: dict[str, Any] = {}
        for name, condition in self.model.conditions.items():
            if isinstance(condition, TextCondition):
                given[name] = batch["ids"], batch["real"]
            elif isinstance(condition, LabelCondition):
                given[name] = batch["label"]
            elif isinstance(condition, LowResCondition):
                given[name] = self._small(batch)
            else:
                given[name] = batch["image"], batch["known"]
        return given

    def _small(self, batch: dict) -> Tensor:
        return reduced(batch["image"], self.condition(LowResCondition).factor, batch["seed"], self.blur, self.noise)

    # ---- drawing -------------------------------------------------------------------------------------------------

    def denoiser(
        self, texts: Sequence[str], scale: float = 1.0, small: Tensor | None = None, region: Known | None = None
    ) -> Denoiser:
        """What the network expects of as many noisy pictures as there are texts, each text read once.

        scale: classifier-free guidance, 1 for none. small: (B, 3, s, s), for an upsampler. region: what is known of the
        pictures; it is told to a network that inpaints, and kept in what any other expects. Raises ValueError for
        guidance without texts, and for an upsampler without small pictures.
        """
        guided = scale != 1.0
        if guided and not self.condition(TextCondition):
            raise ValueError(f"scale {scale}: guidance needs a decoder that reads text; leave the scale at 1")
        told = self._read([*texts, *[""] * len(texts)] if guided else texts)
        twice = 2 if guided else 1
        parts = [told] if told else []
        for condition in self.model.conditions.values():
            if isinstance(condition, LowResCondition):
                if small is None:
                    raise ValueError("this decoder enlarges pictures and was given none")
                parts.append(condition(small.repeat(twice, 1, 1, 1)))
            elif isinstance(condition, InpaintCondition):
                nothing = torch.zeros(len(texts), 4, self.size, self.size, device=self.device)
                image, mask = region or (nothing[:, :3], nothing[:, 3:])
                parts.append(condition(image.repeat(twice, 1, 1, 1), mask.repeat(twice, 1, 1, 1)))
        denoise = self.process.denoiser(self.model, **merge(parts))
        if guided:
            denoise = classifier_free(denoise, scale)
        return keep(denoise, *region) if region else denoise

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def _read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the conditions make of texts, (B, ...): each distinct one is read once."""
        distinct = list(dict.fromkeys(texts))
        parts = []
        for condition in self.model.conditions.values():
            if isinstance(condition, TextCondition):
                ids, real = self._pack(distinct)
                parts.append(condition(ids.to(self.device), real.to(self.device)))
            elif isinstance(condition, LabelCondition):
                parts.append(condition(labels(distinct, self.classes, condition.classes).to(self.device)))
        rows = torch.tensor([distinct.index(text) for text in texts], device=self.device)
        return {name: value[rows] for name, value in merge(parts).items()}

    def _pack(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        assert self.tokenizer is not None
        ids, real = self.tokenizer.pack(texts, self.condition(TextCondition).length)
        return torch.from_numpy(ids), torch.from_numpy(real)

    def preview(self, batch: dict) -> Preview:
        """A picture of each held-out caption; of an upsampler, the small picture, the drawn and the true one below."""
        image, texts = batch["image"], batch["text"]
        small = self._small(batch) if self.condition(LowResCondition) else None
        region = (image, batch["known"]) if "known" in batch else None
        guided = self.drop_text and self.condition(TextCondition)
        denoise = threshold(self.denoiser(texts, PREVIEW_SCALE if guided else 1.0, small, region))
        noise = stream(batch["seed"])(image)
        drawn = ddim(self.process, denoise, noise, timesteps(PREVIEW_STEPS, len(self.process)))
        if region:
            shown = image * batch["known"]
        elif small is not None:
            shown = F.interpolate(small, image.shape[-2:])
        else:
            return [*drawn], texts, None
        return [*shown, *drawn, *image], None, len(image)
