"""Training CLIP (Radford et al. 2021, section 2.3): a contrastive loss of the images and captions of a batch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.clip import CLIP, Absent
from ..models.embedding import Texts
from ..nn.all_gather import contrastive_loss
from ..text.tokenizer import Tokenizer
from . import tasks
from .base import Task
from .collators import CLIPCollator


@tasks.register("clip")
class CLIPTask(Task):
    """The contrastive loss over the global batch.

    max_logit_scale: maximum of the factor of the cosines, clamped after each step.
    """

    family = "clip"
    model: CLIP

    def __init__(self, model: CLIP, tokenizer: Tokenizer | None = None, max_logit_scale: float = 100.0):
        super().__init__(model, tokenizer)
        if not isinstance(model.text, Absent):
            if tokenizer is None:
                raise ValueError("tokenizer: a model that reads text needs one")
            vocab = model.text.token_embedding.num_embeddings
            if tokenizer.vocab_size > vocab:
                raise ValueError(f"model.text.vocab_size: {vocab} is less than the tokenizer's {tokenizer.vocab_size}")
        self.max_logit_scale = max_logit_scale

    def collator(self, held_out: bool = False) -> CLIPCollator:
        return CLIPCollator(self._texts())

    def _texts(self) -> Texts:
        """Raises ValueError where nothing reads texts."""
        context_length = self.model.text.context_length
        assert self.tokenizer is not None
        return Texts(self.tokenizer, context_length)

    def example(self, count: int, size: int) -> dict:
        ids = torch.zeros(count, self.model.text.context_length, dtype=torch.int64)
        return {**super().example(count, size), "ids": ids}

    def forward(self, batch: dict, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, text, scale = self.model(batch["image"], batch["ids"])
        loss = contrastive_loss(image, text, scale)
        with torch.no_grad():
            right = (image.float() @ text.float().T).argmax(dim=1) == torch.arange(len(image), device=image.device)
        return loss, {"scale": scale, "accuracy": right.float().mean()}

    def chance_levels(self, batch: dict) -> dict[str, float]:
        return {"accuracy": 1 / len(batch["key"])}

    @torch.no_grad()
    def after_step(self) -> None:
        self.model.logit_scale.clamp_(
            max=math.log(self.max_logit_scale)
        )  # in `forward` it would stop the gradient for good

    @torch.no_grad()
    def embed_images(self, image: Tensor) -> Tensor:
        """Return unit features of images, (B, 3, size, size) in [-1, 1] to (B, e), float32."""
        return F.normalize(self.model.encode_image(image).float(), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Tensor:
        """Return unit features of captions, (B, e), float32; captions too long are cut."""
        ids = self._texts()(texts)[0].to(self.model.logit_scale.device)
        return F.normalize(self.model.encode_text(ids).float(), dim=-1)
