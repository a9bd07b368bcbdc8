"""DALL-E 1's transformer (Ramesh et al. 2021, section 2.2, appendix B): one stream of text and image tokens.

The stream is a start token, T text positions, and the N image tokens of the image; position i predicts what is at i +
1. Every text position has a pad token of its own, which fills the positions after the caption. Text is causal; the
image sees all of the text, and itself by the layer's pattern (nn/masks.py), in one softmax.

Shapes: B batch, T text positions, N = grid * grid image tokens, V image tokens of the dVAE, w width, H heads, D = w /
H. In the cached calls: G prompts (or the two sides of guidance), C candidates of each.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..nn import masks
from ..nn.attention import attend, attend_by_line
from ..nn.meta_init import normal
from . import models

# On a CPU, oneDNN uses other kernels for products of at most this many numbers, and they round bfloat16 differently.
# They are computed in float32 here, so that an image is the same at any batch size.
FEW = 4096
LARGEST_GRID = 64  # rows of image tokens; the paper has 32


@dataclass
class Cache:
    """Keys and values during sampling: of the text once per prompt, of the image once per candidate.

    text: per layer (2, G, H, T + 1, D); image: per layer (2, G, H, C, S, D), S the slots of its window (nn/masks.py).
    """

    text: list[Tensor]
    image: list[Tensor]


class Attention(nn.Module):
    """Self-attention with q, k and v in one product."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v of (..., N, w), each (..., H, N, D)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return q.transpose(-2, -3), k.transpose(-2, -3), v.transpose(-2, -3)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, look: Callable[..., Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, N, w), look: an attention of q, k, v; returns x, and the keys and values, (B, H, N, D) each."""
        q, k, v = self.attention.split(self.norm_1(x))
        return self._rest(x, look(q, k, v).transpose(1, 2).flatten(2)), k, v

    def step(
        self, x: Tensor, text: Tensor, image: Tensor, slot: slice | Tensor, read: slice | Tensor, unseen: Tensor | None
    ) -> Tensor:
        """One more position of every candidate. x: (G, C, w); text, image: this layer's of Cache.

        slot, read: where it is kept, and the n slots that it looks through; unseen: (n,) of these, true where not.
        """
        qkv = self.attention.qkv(self.norm_1(x)).unflatten(-1, (3, self.attention.heads, -1)).permute(2, 0, 3, 1, 4)
        image[:, :, :, :, slot] = qkv[1:, ..., None, :]
        q = qkv[0] / math.sqrt(qkv.shape[-1])  # (G, H, C, D)
        keys, values = image[:, :, :, :, read]  # (G, H, C, n, D)
        few = keys.shape[-2] * x.shape[-1] <= FEW
        to_text = q @ text[0].mT  # (G, H, C, T + 1): a matrix product, since all candidates share the text
        # (G, H, C, n)
        to_image = (keys.float() * q[..., None, :].float()).sum(-1) if few else (keys @ q[..., None])[..., 0]
        if unseen is not None:
            to_image = to_image.masked_fill(unseen, float("-inf"))
        weights = torch.cat([to_text.float(), to_image.float()], dim=-1).softmax(dim=-1).to(q.dtype)
        from_text, from_image = weights.split([text.shape[-2], keys.shape[-2]], dim=-1)
        if few:
            drawn = (from_image[..., None].float() * values.float()).sum(-2).to(x.dtype)
        else:
            drawn = (from_image[..., None, :] @ values)[..., 0, :]
        out = from_text @ text[1] + drawn  # (G, H, C, D)
        return self._rest(x, out.transpose(1, 2).flatten(2))

    def _rest(self, x: Tensor, seen: Tensor) -> Tensor:
        x = x + self.dropout(self.attention.out(seen))
        return x + self.dropout(self.mlp(self.norm_2(x)))


@models.register("dalle")
class DALLE(nn.Module):
    """The sparse transformer over text tokens and image tokens.

    vocab_size: entries of the text vocabulary. context_length: number of text tokens. image_vocab_size: number of image
    tokens of the dVAE. grid_size: side of the dVAE's square of tokens. attention: "sparse" (rows, columns and a last
    convolution) or "full". dropout: probability of dropout after embeddings and blocks. gradient_checkpointing:
    recompute blocks in the backward pass.
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        image_vocab_size: int,
        grid_size: int,
        width: int,
        depth: int,
        heads: int,
        attention: Literal["sparse", "full"] = "sparse",
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        if min(context_length, grid_size, depth, heads) < 1 or width % heads:
            raise ValueError(
                f"model: width {width} must divide by heads {heads}, and context_length {context_length}, "
                f"grid_size {grid_size} and depth {depth} be at least 1"
            )
        if grid_size > LARGEST_GRID:
            raise ValueError(
                f"model: grid_size {grid_size} is over {LARGEST_GRID}: "
                f"its attention masks would take {20 * grid_size**4} bytes"
            )
        self.vocab_size, self.context_length = vocab_size, context_length
        self.image_vocab_size, self.grid_size = image_vocab_size, grid_size
        self.gradient_checkpointing = gradient_checkpointing
        self.patterns = masks.layer_patterns(attention, depth)
        self.start = normal(width, std=0.02)
        self.text_embedding = nn.Embedding(
            vocab_size + context_length, width
        )  # the pad token of position i is vocab_size + i
        self.text_position = normal(context_length, width, std=0.01)
        self.code_embedding = nn.Embedding(image_vocab_size, width)
        self.row_position = normal(grid_size, width, std=0.01)
        self.column_position = normal(grid_size, width, std=0.01)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.text_head = nn.Linear(width, vocab_size + context_length)
        self.code_head = nn.Linear(width, image_vocab_size)
        with torch.device("cpu"):  # where the parameters are only shapes (meta), masks are still data
            images = {name: masks.PATTERNS[name](grid_size, grid_size) for name in sorted(set(self.patterns))}
            raster = torch.arange(grid_size**2)
            self.windows: dict[str, masks.Window] = {}
            for name, image in images.items():
                order = raster.view(grid_size, grid_size).T.flatten() if name == "column" else raster
                self.register_buffer(f"{name}_band", masks.band(image[order][:, order], grid_size), persistent=False)
                self.windows[name] = masks.window(image, order)
                self.register_buffer(f"{name}_unseen", self.windows[name].unseen, persistent=False)
                slots = torch.tensor([self.windows[name].write, self.windows[name].first])
                self.register_buffer(f"{name}_slots", slots, persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            for last in (block.attention.out, block.mlp[2]):  # type: ignore[union-attr, index]
                nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * depth))  # type: ignore[union-attr, arg-type]

    def pad(self, ids: Tensor, real: Tensor) -> Tensor:
        """Text ids with each position's own pad token where `real` is false. Both (B, T)."""
        return torch.where(real, ids, self.vocab_size + torch.arange(self.context_length, device=ids.device))

    def forward(self, text: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of every text token and every image token, each given those before it.

        text: (B, T) padded by `pad`; tokens: (B, N); returns (B, T, vocab_size + T) and (B, N, V).
        """
        raster = torch.arange(tokens.shape[-1], device=tokens.device)
        x = torch.cat([self._embed_text(text), self._embed_tokens(tokens, raster)], dim=1)  # (B, 1 + T + N, w)
        for pattern, block in zip(self.patterns, self.blocks):
            look = self._look(pattern)
            x, *_ = checkpoint(block, x, look, use_reentrant=False) if self.gradient_checkpointing else block(x, look)
        x = self.norm(x[:, :-1])
        return self.text_head(x[:, : self.context_length]), self.code_head(x[:, self.context_length :])

    def _look(self, pattern: str) -> Callable[..., Tensor]:
        """Return a pattern's attention over the whole stream, whose image part sees all of the text."""
        if pattern == "full":
            return partial(attend, causal=True)
        band = getattr(self, f"{pattern}_band")
        return partial(attend_by_line, text=self.context_length + 1, mask=band, transposed=pattern == "column")

    # ---- sampling, position by position; equal to `forward`, as the tests show ---------------------------------------

    def prefill(self, text: Tensor, candidates: int) -> tuple[Tensor, Cache]:
        """Read the prompts once. text: (G, T); returns the logits of the first token, (G, C, V), and the cache."""
        x = self._embed_text(text)  # (G, 1 + T, w)
        kept = []
        for block in self.blocks:
            x, keys, values = block(x, partial(attend, causal=True))
            kept.append(torch.stack([keys, values]))
        first = self.code_head(self.norm(x[:, -1]))[:, None].expand(-1, candidates, -1)
        _, groups, heads, _, size = kept[0].shape
        slots = [self.windows[pattern].slots for pattern in self.patterns]
        # of zeros: what is not seen yet is read and weighs nothing, which a NaN would not
        image = [kept[0].new_zeros(2, groups, heads, candidates, count, size) for count in slots]
        return first, Cache(kept, image)

    def step(self, tokens: Tensor, position: int | Tensor, cache: Cache) -> Tensor:
        """Return the logits of the token at position + 1, given the one at `position`. tokens: (G, C); returns (G, C,
        V).

        position: a number; or (1,) on the device, and the same is done whatever it is, so that it can be recorded
        (nn/graphs.py).
        """
        at = position if isinstance(position, Tensor) else torch.full((1,), position, device=tokens.device)
        x = self._embed_tokens(tokens[..., None], at)[..., 0, :]  # (G, C, w)
        where = {name: self._where(name, position) for name in self.windows}
        for pattern, block, text, image in zip(self.patterns, self.blocks, cache.text, cache.image):
            x = block.step(x, text, image, *where[pattern])  # type: ignore[operator]
        return self.code_head(self.norm(x))

    def _where(self, name: str, position: int | Tensor) -> tuple[slice | Tensor, slice | Tensor, Tensor | None]:
        """Return a pattern's slot, read and unseen, as `Block.step` has them."""
        window, unseen = self.windows[name], getattr(self, f"{name}_unseen")
        if isinstance(position, Tensor):
            write, first = getattr(self, f"{name}_slots")[:, position]
            whole = window.slots == unseen.shape[1]
            read = slice(None) if whole else first + torch.arange(unseen.shape[1], device=first.device)
            return write, read, unseen[position][0]
        write, first, count = window.write[position], window.first[position], window.count[position]
        hidden = unseen[position, :count] if window.hides[position] else None
        return slice(write, write + 1), slice(first, first + count), hidden

    def _embed_text(self, text: Tensor) -> Tensor:
        x = self.text_embedding(text) + self.text_position
        return torch.cat([self.start.expand(len(x), 1, -1).to(x.dtype), x], dim=1)

    def _embed_tokens(self, tokens: Tensor, position: Tensor) -> Tensor:
        where = self.row_position[position // self.grid_size] + self.column_position[position % self.grid_size]
        return self.code_embedding(tokens) + where


def token_losses(text_logits: Tensor, image_logits: Tensor, text: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropies of text and image tokens, each a mean over its tokens, in nats."""
    return (
        F.cross_entropy(text_logits.float().flatten(0, 1), text.flatten()),
        F.cross_entropy(image_logits.float().flatten(0, 1), tokens.flatten()),
    )
