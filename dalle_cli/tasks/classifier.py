"""Training classifiers of noisy images, whose gradient guides a decoder (Dhariwal and Nichol 2021, section 4)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.classifier import Classifier
from ..text.class_labels import check_class_names, class_labels
from . import tasks
from .base import Task
from .collators import LabelCollator
from .noising import Schedule, add_noise, make_process


@tasks.register("classifier")
class ClassifierTask(Task):
    """Cross-entropy of the class at a random timestep of the process of the guided decoder.

    schedule: noise schedule. steps: timesteps of the diffusion process. classes: names, in order, of which a caption
    holds one; without them captions are numbers.
    """

    model: Classifier

    def __init__(
        self, model: Classifier, schedule: Schedule = "cosine", steps: int = 1000, classes: list[str] | None = None
    ):
        super().__init__(model)
        check_class_names(classes, model.classes)
        self.classes = classes
        self.process = make_process(schedule, steps)

    def collator(self, held_out: bool = False) -> LabelCollator:
        return LabelCollator(self.classes, self.model.classes)

    def example(self, count: int, size: int) -> dict:
        return {**super().example(count, size), "label": torch.zeros(count, dtype=torch.int64)}

    def forward(self, batch: dict, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        x, t, _ = add_noise(self.process, batch["image"], batch["seed"])
        logits = self.model(x, t).float()
        right = (logits.argmax(dim=1) == batch["label"]).float()
        return F.cross_entropy(logits, batch["label"]), {"accuracy": right.mean()}

    def chance_levels(self, batch: dict) -> dict[str, float]:
        return {"accuracy": 1 / self.model.classes}

    def score(self, texts: Sequence[str], x: Tensor, t: Tensor) -> Tensor:
        """Return the log-probability of each text's class: (B,). x: (B, 3, S, S), noisy; t: (B,)."""
        label = torch.from_numpy(class_labels(texts, self.classes, self.model.classes)).to(x.device)
        return F.log_softmax(self.model(x, t).float(), dim=1).gather(1, label[:, None])[:, 0]
