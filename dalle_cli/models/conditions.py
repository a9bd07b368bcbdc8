"""What a U-Net is told beside the noisy picture and the time: texts, labels, embeddings, other pictures.

A condition turns its inputs into any of: `embedding` (B, E), added to the time's; `tokens` (B, M, context_dim), which
every attention sees, with `mask` (B, M), true where they are real; `channels` (B, c, H, W), put beside the picture.
They hold for all steps of a picture, so they are made once. Shapes: B batch, E width of the time's embedding, M tokens.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.meta_init import normal
from . import models
from .adm import zero
from .transformer import Transformer


class Condition(nn.Module):
    """channels: how many input channels it adds; context_dim: width of its tokens, None for no tokens."""

    channels: int = 0
    context_dim: int | None = None

    def __init__(self):  # torch's takes anything; this is what a recipe may give
        super().__init__()

    def connect(self, embedding: int) -> None:
        """Called once, by the network that takes it: make the layers that end in its time embedding's width."""


@models.register("text-condition")
class TextCondition(Condition):
    """GLIDE's text encoder: every token's state, and the last one's added to the time's embedding.

    Called with ids and real, (B, context_length) each; where `real` is false a padding vector of that place stands for
    token and position, and is read like any other. No text is all padding. Source: Nichol et al. 2022, section 3.
    """

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
                f"text of {ids.shape[1]} tokens for an encoder of {self.context_length}; pad or cut it to those"
            )
        x = self.token_embedding(ids) + self.positional_embedding  # (B, M, w)
        x = torch.where(real[..., None], x, self.padding_embedding.to(x.dtype))
        x, _ = self.transformer(x, gradient_checkpointing=self.gradient_checkpointing)
        x = self.final_ln(x)
        return {"embedding": self.transformer_proj(x[:, -1]), "tokens": x}


@models.register("label-condition")
class LabelCondition(Condition):
    """A class, added to the time's embedding. Called with labels, (B,). Source: Dhariwal & Nichol 2021, section 3."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes

    def connect(self, embedding: int) -> None:
        self.label_emb = nn.Embedding(self.classes, embedding)

    def forward(self, labels: Tensor) -> dict[str, Tensor]:
        return {"embedding": self.label_emb(labels)}


@models.register("low-res-condition")
class LowResCondition(Condition):
    """A small picture, enlarged `factor` times and put beside the noisy one. Called with it, (B, 3, h, w)."""

    channels = 3

    def __init__(self, factor: int = 4, resize: Literal["bilinear", "bicubic"] = "bilinear"):
        super().__init__()
        self.factor, self.resize = factor, resize

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        size = [self.factor * side for side in image.shape[-2:]]
        # antialiasing changes nothing of an enlargement but the cubic's sharpness: Karlo was trained with that one
        return {"channels": F.interpolate(image, size, mode=self.resize, antialias=self.resize == "bicubic")}


@models.register("inpaint-condition")
class InpaintCondition(Condition):
    """The known part of a picture. Called with image, (B, 3, H, W), and mask, (B, 1, H, W), 1 where it is known."""

    channels = 4

    def forward(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"channels": torch.cat([image * mask, mask], dim=1)}


@models.register("clip-condition")
class ClipCondition(Condition):
    """A CLIP image embedding, added to the time's, and as `tokens` tokens of `width`.

    Called with it, (B, embed_dim), and keep, (B,), false where a learned vector is to stand in its place; without
    `keep` all are kept. Source: Ramesh et al. 2022, section 2.1; the learned vector of no embedding is Karlo's.
    """

    def __init__(self, embed_dim: int, tokens: int, width: int):
        super().__init__()
        self.embed_dim, self.tokens, self.context_dim = embed_dim, tokens, width
        self.cf_param = nn.Parameter(torch.zeros(embed_dim))
        self.clip_tok_proj = nn.Linear(embed_dim, tokens * width)

    def connect(self, embedding: int) -> None:
        self.clip_emb = nn.Linear(self.embed_dim, embedding)

    def forward(self, embedding: Tensor, keep: Tensor | None = None) -> dict[str, Tensor]:
        embedding = embedding.to(self.cf_param.dtype)  # CLIP's own precision may be another
        if keep is not None:
            embedding = torch.where(keep[:, None], embedding, self.cf_param)
        tokens = self.clip_tok_proj(embedding).unflatten(-1, (self.context_dim, self.tokens)).mT  # type: ignore[arg-type]
        return {"embedding": self.clip_emb(embedding), "tokens": tokens}


@models.register("clip-text-condition")
class ClipTextCondition(Condition):
    """What a frozen CLIP makes of a text: its embedding and the states of its tokens, mapped to `width`.

    Called with embedding (B, embed_dim), states (B, M, text_width), real (B, M) and ids (B, M); padding is not seen.
    depth: layers of a transformer of its own, in which every token sees all others: the states of a CLIP know only the
    words before, so that a thing does not know how it lies to the next one. vocab_size: entries of an embedding of its
    own, which is added: the states of "above" and "below" may differ in less than a tenth. 0 and none as published.
    Source: Karlo.
    """

    def __init__(
        self, embed_dim: int, text_width: int, width: int, depth: int = 0, heads: int = 2, vocab_size: int | None = None
    ):
        super().__init__()
        self.embed_dim, self.context_dim = embed_dim, width
        self.text_seq_proj = nn.Sequential(nn.Linear(text_width, width), nn.LayerNorm(width))
        self.token_embedding = nn.Embedding(vocab_size, width) if vocab_size else None
        if self.token_embedding:
            nn.init.normal_(self.token_embedding.weight, std=0.3)
        self.transformer = Transformer(width, depth, heads) if depth else None
        for block in self.transformer.resblocks if self.transformer else ():
            zero(block.attn.c_proj), zero(block.mlp.c_proj)  # type: ignore[union-attr]

    def connect(self, embedding: int) -> None:
        self.text_feat_proj = nn.Linear(self.embed_dim, embedding)

    def forward(self, embedding: Tensor, states: Tensor, real: Tensor, ids: Tensor | None = None) -> dict[str, Tensor]:
        kind = self.text_feat_proj.weight.dtype
        tokens = self.text_seq_proj(states.to(kind))
        if self.token_embedding:
            assert ids is not None
            tokens = tokens + self.token_embedding(ids)
        if self.transformer:
            tokens, _ = self.transformer(tokens, real[:, None, None])
        return {"embedding": self.text_feat_proj(embedding.to(kind)), "tokens": tokens, "mask": real}


def merge(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """What several conditions say together: embeddings are summed, tokens and channels follow each other."""
    told = {key: [part[key] for part in parts if key in part] for key in ("embedding", "tokens", "channels")}
    merged: dict[str, Tensor] = {}
    if told["embedding"]:
        merged["embedding"] = torch.stack(told["embedding"]).sum(dim=0)
    for key in ("tokens", "channels"):
        if told[key]:
            merged[key] = torch.cat(told[key], dim=1)
    if any("mask" in part for part in parts):  # tokens of the others are all real
        masks = [part.get("mask", part["tokens"].new_ones(part["tokens"].shape[:2], dtype=torch.bool))
                 for part in parts if "tokens" in part]  # fmt: skip
        merged["mask"] = torch.cat(masks, dim=1)
    return merged
