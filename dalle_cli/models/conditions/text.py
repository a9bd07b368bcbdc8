"""Conditioning on text through GLIDE's own text encoder (Nichol et al. 2022, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.meta_init import normal
from .. import models
from ..embedding import Texts
from ..transformer import Transformer
from .base import Condition, Request, Resources, TrainingSample, check_vocabulary


@models.register("text-condition")
class TextCondition(Condition):
    """A transformer over the text: every token's state, and the last one added to the time embedding.

    Called with ids and real, (B, context_length) each; where `real` is false, a padding vector of that position stands
    for token and position, and is read like any other. The null value is all padding.
    """

    has_null = reads_text = True

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        width: int,
        depth: int,
        heads: int,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        self.vocab_size, self.context_length, self.context_dim = vocab_size, context_length, width
        self.gradient_checkpointing = gradient_checkpointing
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = normal(context_length, width, std=0.01)
        self.padding_embedding = normal(context_length, width, std=0.02)
        self.transformer = Transformer(width, depth, heads)
        self.final_ln = nn.LayerNorm(width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def connect(self, embedding: int) -> None:
        self.transformer_proj = nn.Linear(self.context_dim, embedding)  # type: ignore[arg-type]

    def forward(self, ids: Tensor, real: Tensor) -> dict[str, Tensor]:
        if ids.shape[1] != self.context_length:
            raise ValueError(
                f"text of {ids.shape[1]} tokens for an encoder of {self.context_length}; pad or truncate it"
            )
        x = self.token_embedding(ids) + self.positional_embedding  # (B, M, w)
        x = torch.where(real[..., None], x, self.padding_embedding.to(x.dtype))
        x, _ = self.transformer(x, gradient_checkpointing=self.gradient_checkpointing)
        x = self.final_ln(x)
        return {"embedding": self.transformer_proj(x[:, -1]), "tokens": x}

    def check(self, path: str, resources: Resources) -> None:
        check_vocabulary(path, self.vocab_size, resources.require_tokenizer())

    def collate(self, resources: Resources) -> "Tokenize":
        return Tokenize(Texts(resources.require_tokenizer(), self.context_length))

    def example(self, batch_size: int, resources: Resources) -> dict[str, Tensor]:
        ids = torch.zeros(batch_size, self.context_length, dtype=torch.int64)
        return {"ids": ids, "real": ids.bool()}

    def inputs(self, batch: dict[str, Any], resources: Resources) -> tuple[Tensor, ...]:
        return batch["ids"], batch["real"]

    def encode(self, request: Request, resources: Resources) -> dict[str, Tensor]:
        tokenize = Texts(resources.require_tokenizer(), self.context_length)
        return self.encode_distinct(
            request.all_texts(), lambda texts: tuple(part.to(request.device) for part in tokenize(texts))
        )


@dataclass(frozen=True)
class Tokenize:
    """Token ids of a batch's texts, and which of them are no padding."""

    texts: Texts

    def __call__(self, samples: Sequence[TrainingSample]) -> dict[str, Tensor]:
        ids, real = self.texts([sample.text for sample in samples])
        return {"ids": ids, "real": real}
