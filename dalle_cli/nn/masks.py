"""DALL-E 1's attention patterns as boolean masks: who may look at whom (Ramesh et al. 2021, appendix B.1, figure 11).

A mask over the image is (n, n), n = height * width positions in raster order, true where the row's position may look at
the column's. All patterns are causal in raster order. Details that only the paper's figures show are not verified.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def full(height: int, width: int) -> Tensor:
    """Every earlier position, and itself."""
    n = height * width
    return torch.ones(n, n, dtype=torch.bool).tril()


def row(height: int, width: int) -> Tensor:
    """Return the last width + 1 positions, itself included: back to the same column of the row above."""
    position = torch.arange(height * width)
    back = position[:, None] - position[None, :]
    return (back >= 0) & (back <= width)


def column(height: int, width: int) -> Tensor:
    """Return the row pattern of the transposed grid, as far as it is causal: above, itself and the left."""
    position = torch.arange(height * width)
    transposed = (position % width) * height + position // width
    back = transposed[:, None] - transposed[None, :]
    return (back >= 0) & (back <= height) & full(height, width)


def convolution(height: int, width: int, kernel: int = 11) -> Tensor:
    """Return the earlier half of a kernel x kernel neighborhood, wrapping around where rows end."""
    position = torch.arange(height * width)
    reach = kernel // 2
    mask = torch.zeros(height * width, height * width, dtype=torch.bool)
    for up in range(reach + 1):
        for aside in range(-reach, reach + 1):
            mask |= position[:, None] - position[None, :] == up * width - aside
    return mask & full(height, width)


PATTERNS: dict[str, Callable[[int, int], Tensor]] = {
    "full": full,
    "row": row,
    "column": column,
    "convolution": convolution,
}


def layer_patterns(kind: str, depth: int) -> list[str]:
    """Return the pattern of each layer.

    kind: "full", or "sparse": row, column, row, row, ... and convolution in the last layer.
    """
    if kind == "full":
        return ["full"] * depth
    if kind == "sparse":
        return ["column" if i % 4 == 1 else "row" for i in range(depth - 1)] + ["convolution"]
    raise ValueError(f"model.attention: no pattern '{kind}' (known: sparse, full)")


def band(image: Tensor, lines: int) -> Tensor:
    """Return an image mask as attention by lines wants it: (L, C, m * C), for the fewest m that lose nothing.

    image: (L * C, L * C), lines after one another.
    """
    positions = len(image) // lines
    by_line = image.view(lines, positions, lines, positions).transpose(1, 2)  # (L, L, C, C): line, line seen
    distance = torch.arange(lines)[:, None] - torch.arange(lines)
    before = int(distance[by_line.any(dim=-1).any(dim=-1)].max())
    padded = F.pad(by_line, (0, 0, 0, 0, before, 0))  # line seen, from `before` lines above the image
    blocks = torch.stack([padded[line, line : line + before + 1] for line in range(lines)])  # (L, m, C, C)
    return blocks.transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class Window:
    """Where a layer keeps the positions of an image while it is sampled: what a position sees is contiguous.

    slots: how many positions are kept; write: the slot of each; first, count: which slots each looks through, its own
    among them; unseen: (N, n) of the n slots from the first on, true where a position may not look; hides: whether it
    is so for any that the position reads.
    """

    slots: int
    write: list[int]
    first: list[int]
    count: list[int]
    unseen: Tensor
    hides: list[bool]


def window(image: Tensor, order: Tensor) -> Window:
    """Return the window of an image mask, (N, N), for an order of the positions, (N,), in which each sees few before
    it.

    In the order of sampling it is a ring, which forgets what no later position sees; else all are kept in that order.
    """
    positions = torch.arange(len(order))
    rank = order.argsort()
    reach = int((rank[:, None] - rank)[image].max()) + 1
    slots = torch.arange(reach)
    if torch.equal(order, positions):
        held = positions[:, None] - (positions[:, None] - slots) % reach
        write, first, count, kept = (
            positions % reach,
            torch.zeros_like(positions),
            (positions + 1).clamp(max=reach),
            reach,
        )
    else:
        held = rank[:, None] - reach + 1 + slots
        held = torch.where(held < 0, -1, order[held.clamp(min=0)])
        write, first, count, kept = rank + reach - 1, rank, torch.full_like(rank, reach), len(order) + reach - 1
    unseen = ~(image.gather(1, held.clamp(min=0)) & (held >= 0))
    hides = (unseen & (slots < count[:, None])).any(dim=1)
    return Window(kept, write.tolist(), first.tolist(), count.tolist(), unseen, hides.tolist())
