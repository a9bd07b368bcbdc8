"""unCLIP's autoregressive prior (Ramesh et al. 2022, section 2.2): a CLIP image embedding as a row of tokens.

The embedding's principal components, in order of decreasing variance, each cut into buckets. A causal
transformer reads the text as the diffusion prior does, then a token that says how well embedding and text shall fit,
then the components sampled so far, and predicts the buckets of the next one.

Shapes: B batch, e embed_dim, w width, M = context_length + 1 tokens of the text, P components, K buckets, L layers, H
heads.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.pca import principal_components as principal
from . import models
from .adm import unmixed
from .prior import Prior, causal

LARGEST = 1 << 26  # entries of the table of buckets
WAVES = 16  # half periods over all buckets, in what the tokens start from


@dataclass
class Cache:
    """Keys and values of rows that are being sampled, (B, L, 2, H, M + P, D), and which may be seen, (B, M + P)."""

    past: Tensor
    seen: Tensor


@models.register("ar-prior")
class ARPrior(Prior):
    """Predict the buckets of one principal component after another.

    embed_dim: width of the CLIP embedding. context_length: number of text states that it reads. text_width: width of
    these states. components: maximum number of components. buckets: buckets of each component, and of the similarity of
    text and image. explained_variance: fraction of the variance to explain; fewer components are used if they suffice.
    gradient_checkpointing: recompute blocks in the backward pass.

    The components and the bounds of the buckets, which hold equal numbers of samples, are buffers that `fit` computes.
    """

    mean: Tensor  # (e,)
    basis: Tensor  # (P, e)
    bounds: Tensor  # (P, K - 1), rising
    centres: Tensor  # (P, K)
    product_bounds: Tensor  # (K - 1,)
    kept: Tensor  # how many components are in use

    def __init__(
        self,
        embed_dim: int,
        context_length: int,
        text_width: int,
        components: int,
        width: int,
        depth: int,
        heads: int,
        buckets: int = 1024,
        explained_variance: float = 1.0,
        gradient_checkpointing: bool = False,
    ):
        if not 1 <= components <= embed_dim:
            raise ValueError(f"model.components: {components} is not between 1 and embed_dim, {embed_dim}")
        if buckets < 2 or components * buckets > LARGEST:
            raise ValueError(f"model.buckets: {buckets}; 2 at least, and {LARGEST} for all components together at most")
        if not 0 < explained_variance <= 1:
            raise ValueError(f"model.explained_variance: {explained_variance} is not in (0, 1]")
        super().__init__(embed_dim, context_length, text_width, components, width, depth, heads, gradient_checkpointing)
        self.components, self.buckets, self.explained_variance = components, buckets, explained_variance
        self.product_embedding = nn.Embedding(buckets + 1, width)  # the last one: nothing is asked
        self.bucket_embedding = nn.Embedding(buckets, width)
        self.out_proj = nn.Linear(width, buckets)
        # What is near lies near from the start, since buckets are numbers and each is met by few samples.
        for table in (self.product_embedding, self.bucket_embedding, self.out_proj):
            table.weight = nn.Parameter(0.02 * _smooth(*table.weight.shape))
        self.register_buffer("mean", torch.zeros(embed_dim))
        self.register_buffer("basis", torch.eye(components, embed_dim))
        self.register_buffer("bounds", torch.zeros(components, buckets - 1))
        self.register_buffer("centres", torch.zeros(components, buckets))
        self.register_buffer("product_bounds", torch.zeros(buckets - 1))
        self.register_buffer("kept", torch.tensor(components))

    # ---- embeddings and tokens ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def fit(self, embeddings: Tensor, texts: Tensor) -> None:
        """Find components and buckets from embeddings of images and of their texts, (N, e) each.

        Raises ValueError for fewer than there are buckets.
        """
        if len(embeddings) < self.buckets:
            raise ValueError(f"{len(embeddings)} embeddings for {self.buckets} buckets; lower model.buckets")
        found = principal(embeddings)
        self.mean.copy_(found.mean)
        self.basis.copy_(found.basis[: self.components])
        self.kept.fill_(min(self.components, found.enough(self.explained_variance)))
        device = self.basis.device
        along = (embeddings.to(device, torch.float64) - self.mean.double()) @ self.basis.double().T  # (N, P)
        rows = along.T.contiguous().sort(dim=1).values
        self.bounds.copy_(_bounds(rows, self.buckets))
        ends = torch.arange(self.buckets + 1, device=device) * rows.shape[1] // self.buckets
        sums = F.pad(rows.cumsum(dim=1), (1, 0))
        self.centres.copy_((sums[:, ends[1:]] - sums[:, ends[:-1]]) / (ends[1:] - ends[:-1]))
        products = F.cosine_similarity(embeddings.to(device).double(), texts.to(device).double(), dim=1)
        self.product_bounds.copy_(_bounds(products.sort().values[None], self.buckets)[0])

    def quantize(self, embedding: Tensor) -> Tensor:
        """Return the buckets of image embeddings. (B, e) to (B, P)."""
        with unmixed(embedding):
            along = (embedding.float() - self.mean) @ self.basis.T
        return torch.searchsorted(self.bounds, along.T.contiguous()).T.contiguous()

    def dequantize(self, tokens: Tensor) -> Tensor:
        """Image embeddings of buckets, (B, n) of the first n components, to (B, e)."""
        count = tokens.shape[1]
        with unmixed(self.centres):
            return self.centres[torch.arange(count, device=tokens.device), tokens] @ self.basis[:count] + self.mean

    def product(self, embedding: Tensor, text: Tensor) -> Tensor:
        """Return the token of their similarity: the bucket of their cosine. Both (B, e), to (B,)."""
        return torch.searchsorted(self.product_bounds, F.cosine_similarity(embedding.float(), text.float(), dim=1))

    # ---- the network -------------------------------------------------------------------------------------------------

    def forward(self, tokens: Tensor, product: Tensor, embedding: Tensor, states: Tensor, real: Tensor) -> Tensor:
        """Return the logits of every component's buckets, each given those before: (B, P, K).

        tokens: (B, P); product: (B,), `buckets` for nothing asked; the text as for `encode`.
        """
        text, seen = self.text(embedding, states, real)
        own = torch.cat([self.product_embedding(product)[:, None], self.bucket_embedding(tokens[:, :-1])], dim=1)
        x = torch.cat([text, own + self.positional_embedding[:, text.shape[1] :]], dim=1)  # (B, M + P, w)
        mask = causal(F.pad(seen, (0, self.components), value=True))
        x, _ = self.transformer(x, mask, None, self.gradient_checkpointing)
        return self.out_proj(self.final_ln(x[:, -self.components :]))

    # ---- sampling, component by component; equal to `forward`, as the tests show -------------------------------------

    def start(self, product: Tensor, past: Tensor, seen: Tensor) -> tuple[Tensor, Cache]:
        """Return the logits of the first component's buckets, (B, K). product: (B,); past, seen: from `encode`."""
        shape = list(past.shape)
        shape[-2] += self.components
        cache = Cache(past.new_empty(shape), F.pad(seen, (0, self.components), value=True))
        cache.past[..., : past.shape[-2], :] = past
        return self._step(self.product_embedding(product), 0, cache), cache

    def step(self, tokens: Tensor, position: int, cache: Cache) -> Tensor:
        """Return the logits of the component at position + 1, given the bucket at `position`, (B,)."""
        return self._step(self.bucket_embedding(tokens), position + 1, cache)

    def _step(self, x: Tensor, position: int, cache: Cache) -> Tensor:
        at = self.context_length + 1 + position
        x = (x + self.positional_embedding[0, at])[:, None]
        x, kept = self.transformer(x, cache.seen[:, None, None, : at + 1], cache.past[..., :at, :])
        cache.past[..., at : at + 1, :] = torch.stack([torch.stack(layer, dim=1) for layer in kept], dim=1)
        return self.out_proj(self.final_ln(x[:, 0]))


def _smooth(buckets: int, width: int) -> Tensor:
    """Return embeddings of standard deviation 1 that vary smoothly over the buckets, sums of slow waves: (K, w)."""
    position = (torch.arange(buckets) + 0.5) / buckets
    waves = torch.arange(min(WAVES, buckets))
    return (math.pi * position[:, None] * waves).cos() @ torch.randn(len(waves), width) / math.sqrt(len(waves) / 2)


def _bounds(rows: Tensor, buckets: int) -> Tensor:
    """Between which numbers the buckets lie, so that each gets as many. rows: (P, N), rising, to (P, K - 1)."""
    ends = torch.arange(1, buckets, device=rows.device) * rows.shape[1] // buckets
    return (rows[:, ends - 1] + rows[:, ends]) / 2
