"""unCLIP's diffusion prior (Ramesh et al. 2022, section 2.2), in Karlo's form: from a text to a CLIP image embedding.

A causal transformer over: the states of the text's tokens, the text's embedding, the time, the noisy image embedding,
and a query, at which the embedding without noise is read. Everything up to the text's embedding is the same at all
times, and causal: `encode` reads it once. Parameter names are those of the published weights.

Shapes: B batch, e embed_dim, w width, M = context_length + 1 tokens of the text, L layers, H heads, D = w / H.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.meta_init import normal
from . import models
from .adm import TimeEmbedding
from .transformer import Transformer


class Prior(nn.Module):
    """What unCLIP's two priors share: a causal transformer that first reads a text as CLIP has read it.

    embed_dim: of CLIP; context_length, text_width: number and width of the text states that it reads; more: positions
    after M.
    """

    def __init__(
        self, embed_dim: int, context_length: int, text_width: int, more: int, width: int, depth: int, heads: int,
        gradient_checkpointing: bool,
    ):  # fmt: skip
        super().__init__()
        self.embed_dim, self.context_length, self.text_width = embed_dim, context_length, text_width
        self.gradient_checkpointing = gradient_checkpointing
        self.text_enc_proj = nn.Linear(text_width, width)
        self.text_emb_proj = nn.Linear(embed_dim, width)
        self.positional_embedding = normal(1, context_length + 1 + more, width, std=0.01)
        self.transformer = Transformer(width, depth, heads)
        self.final_ln = nn.LayerNorm(width)

    def encode(self, embedding: Tensor, states: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Read the text once for all that follows it.

        embedding: (B, e); states: (B, context_length, text_width), those of its tokens; real: (B, context_length),
        false for padding. Returns keys and values of all layers, (B, L, 2, H, M, D), and which of them may be seen, (B,
        M).
        """
        x, seen = self.text(embedding, states, real)
        _, kept = self.transformer(x, causal(seen), None, self.gradient_checkpointing)
        return {"past": torch.stack([torch.stack(layer, dim=1) for layer in kept], dim=1), "seen": seen}

    def text(self, embedding: Tensor, states: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens of the text, (B, M, w), and which may be seen, (B, M).

        Raises ValueError for another context_length.
        """
        if states.shape[1] != self.context_length:
            raise ValueError(
                f"states of {states.shape[1]} tokens for a prior of {self.context_length}; pad or cut the text"
            )
        x = torch.cat([self.text_enc_proj(states), self.text_emb_proj(embedding)[:, None]], dim=1)
        return x + self.positional_embedding[:, : x.shape[1]], F.pad(real, (0, 1), value=True)


def causal(seen: Tensor) -> Tensor:
    """Return what tokens may look at: themselves, and those before them that may be seen. (B, N) to (B, 1, N, N)."""
    length = seen.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=seen.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=seen.device)  # so that no row of padding sees nothing
    return (before & seen[:, None] | itself)[:, None]


@models.register("diffusion-prior")
class DiffusionPrior(Prior):
    """Predict x0, a whitened image embedding.

    embed_dim: width of the CLIP embedding. context_length: number of text states that it reads. text_width: width of
    these states. gradient_checkpointing: recompute blocks in the backward pass.

    The buffers `mean` and `std` whiten; `fit` computes them, or they come with the published weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        embed_dim: int,
        context_length: int,
        text_width: int,
        width: int,
        depth: int,
        heads: int,
        gradient_checkpointing: bool = False,
    ):
        super().__init__(embed_dim, context_length, text_width, 3, width, depth, heads, gradient_checkpointing)
        self.clip_img_proj = nn.Linear(embed_dim, width)
        self.time_embed = TimeEmbedding(width, width)
        self.prd_emb = normal(1, 1, width, std=0.01)
        self.out_proj = nn.Linear(width, embed_dim)
        self.register_buffer("mean", torch.zeros(embed_dim))
        self.register_buffer("std", torch.ones(embed_dim))

    @torch.no_grad()
    def fit(self, embeddings: Tensor) -> None:
        """Take mean and deviation from image embeddings, (N, e)."""
        x = embeddings.double()
        self.mean.copy_(x.mean(dim=0))
        self.std.copy_(x.std(dim=0, correction=0).clamp(min=1e-6))

    def whiten(self, embedding: Tensor) -> Tensor:
        """Return whitened CLIP image embeddings, (B, e) to the same; `unwhiten` is the inverse."""
        return (embedding - self.mean) / self.std

    def unwhiten(self, embedding: Tensor) -> Tensor:
        return embedding * self.std + self.mean

    def forward(self, x: Tensor, t: Tensor, past: Tensor, seen: Tensor) -> Tensor:
        """Return the whitened embedding without noise.

        x: (B, e), noisy; t: (B,) integer times; past, seen: from `encode`.
        """
        time = self.time_embed(t)
        x = self.clip_img_proj(x)
        x = torch.stack([time.to(x.dtype), x, self.prd_emb[0].to(x.dtype).expand_as(x)], dim=1)  # (B, 3, w)
        own = torch.ones(3, 3, dtype=torch.bool, device=x.device).tril().expand(len(x), 3, 3)
        mask = torch.cat([seen[:, None].expand(-1, 3, -1), own], dim=-1)[:, None]  # (B, 1, 3, M + 3)
        x, _ = self.transformer(x + self.positional_embedding[:, -3:], mask, past, self.gradient_checkpointing)
        return self.out_proj(self.final_ln(x[:, -1]))
