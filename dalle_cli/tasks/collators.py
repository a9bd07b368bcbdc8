"""Collators: what turns the samples of a batch into tensors, in the workers that read the data.

A worker process is sent its collator, so a collator is small and picklable: settings and a tokenizer, never a network.
All randomness comes from the seeds of the samples, so a batch is the same in any process.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.degradations import known_mask, seeded_crop
from ..data.loader import stack
from ..models.conditions.base import BatchPart, TrainingSample
from ..models.embedding import Texts
from ..nn.noise import TrainingStream
from ..text.class_labels import class_labels


@dataclass(frozen=True)
class CLIPCollator:
    """Adds `ids`, cut to the longest caption of the batch: what follows the end token changes nothing."""

    texts: Texts

    def __call__(self, samples: list[dict]) -> dict:
        batch = stack(samples)
        ids, real = self.texts(batch["text"])
        return {**batch, "ids": ids[:, : int(real.sum(dim=1).max())].clone()}


@dataclass(frozen=True)
class NoisedCLIPCollator:
    """Adds `ids` and the `lengths` of the captions in tokens."""

    texts: Texts

    def __call__(self, samples: list[dict]) -> dict:
        batch = stack(samples)
        ids, real = self.texts(batch["text"])
        return {**batch, "ids": ids, "lengths": real.sum(dim=1)}


@dataclass(frozen=True)
class DALLECollator:
    """Adds `ids` and `real` of the captions. bpe_dropout, text_drop_prob: as of the task."""

    texts: Texts
    bpe_dropout: float
    text_drop_prob: float

    def __call__(self, samples: list[dict]) -> dict:
        rows, masks = [], []
        tokenizer, length = self.texts.tokenizer, self.texts.context_length
        for sample in samples:
            rng = random.Random(sample["seed"] + TrainingStream.AUGMENTATION)
            text = "" if rng.random() < self.text_drop_prob else sample["text"]
            ids, mask = tokenizer.pack([text], length, dropout=self.bpe_dropout, random=rng)
            rows.append(torch.from_numpy(ids[0]))
            masks.append(torch.from_numpy(mask[0]))
        return {**stack(samples), "ids": torch.stack(rows), "real": torch.stack(masks)}


@dataclass(frozen=True)
class PriorCollator:
    """Adds `ids` and `real` of the captions, and which of them are `dropped`."""

    texts: Texts
    text_drop_prob: float

    def __call__(self, samples: list[dict]) -> dict:
        dropped = [
            random.Random(sample["seed"] + TrainingStream.AUGMENTATION).random() < self.text_drop_prob
            for sample in samples
        ]
        ids, real = self.texts(["" if drop else sample["text"] for sample, drop in zip(samples, dropped)])
        return {**stack(samples), "ids": ids, "real": real, "dropped": torch.tensor(dropped)}


@dataclass(frozen=True)
class LabelCollator:
    """Adds `label`, the class of each caption. names: of the classes, None for numbers."""

    names: Sequence[str] | None
    classes: int

    def __call__(self, samples: list[dict]) -> dict:
        batch = stack(samples)
        return {**batch, "label": torch.from_numpy(class_labels(batch["text"], self.names, self.classes))}


@dataclass(frozen=True)
class DecoderCollator:
    """Adds what the conditions of a decoder need, and crops images to the side that is trained on.

    size, side: pixels of the images and of the crops. text_drop_prob, image_drop_prob, full_mask_prob: as of the task.
    parts: what makes the part of each condition (models/conditions).
    """

    size: int
    side: int
    text_drop_prob: float
    image_drop_prob: float
    full_mask_prob: float
    parts: tuple[BatchPart, ...]

    def __call__(self, samples: list[dict]) -> dict:
        if self.side < self.size:
            check_side(samples[0]["image"], self.size, self.size)
            samples = [{**sample, "image": self._crop(sample)} for sample in samples]
        batch, chosen = stack(samples), [self._choose(sample) for sample in samples]
        for part in self.parts:
            batch |= part(chosen)
        return batch

    def _crop(self, sample: dict) -> Tensor:
        return seeded_crop(sample["image"], self.side, sample["seed"] + TrainingStream.DEGRADATION)

    def _choose(self, sample: dict) -> TrainingSample:
        """Make all choices in this order for any conditions, so that a seed means the same in every task."""
        rng = random.Random(sample["seed"] + TrainingStream.AUGMENTATION)
        text = "" if rng.random() < self.text_drop_prob else sample["text"]
        mask = known_mask(self.side, rng, self.full_mask_prob)
        keep = rng.random() >= self.image_drop_prob
        return TrainingSample(sample.get("image"), sample["seed"], sample["text"], text, mask, keep)


def check_side(image: Tensor, side: int, size: int) -> None:
    """Raise ValueError when images have other sides than a decoder of `size` pixels is trained on."""
    if image.shape[-1] != side:
        raise ValueError(f"the decoder generates {size} px, not {image.shape[-1]}: set data.size={size}")
