"""Conditioning on a class (Dhariwal & Nichol 2021, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...text.class_labels import check_class_names, class_labels
from .. import models
from .base import Condition, Request, Resources, TrainingSample


@models.register("label-condition")
class LabelCondition(Condition):
    """An embedding of the class, added to the time embedding. Called with labels, (B,)."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes

    def connect(self, embedding: int) -> None:
        self.label_emb = nn.Embedding(self.classes, embedding)

    def forward(self, labels: Tensor) -> dict[str, Tensor]:
        return {"embedding": self.label_emb(labels)}

    def check(self, path: str, resources: Resources) -> None:
        check_class_names(resources.classes, self.classes)

    def collate(self, resources: Resources) -> "Labels":
        return Labels(resources.classes, self.classes)

    def example(self, batch_size: int, resources: Resources) -> dict[str, Tensor]:
        return {"label": torch.zeros(batch_size, dtype=torch.int64)}

    def inputs(self, batch: dict[str, Any], resources: Resources) -> tuple[Tensor, ...]:
        return (batch["label"],)

    def encode(self, request: Request, resources: Resources) -> dict[str, Tensor]:
        return self.encode_distinct(
            request.all_texts(),
            lambda texts: (torch.from_numpy(class_labels(texts, resources.classes, self.classes)).to(request.device),),
        )


@dataclass(frozen=True)
class Labels:
    """The class of each caption."""

    names: Sequence[str] | None
    count: int

    def __call__(self, samples: Sequence[TrainingSample]) -> dict[str, Tensor]:
        return {"label": torch.from_numpy(class_labels([sample.caption for sample in samples], self.names, self.count))}
