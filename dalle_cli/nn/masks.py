"""DALL-E 1's attention patterns as boolean masks: who may look at whom (Ramesh et al. 2021, appendix B.1, figure 11).

A mask over the image is (n, n), n = height * width places in raster order, true where the row's place may look at the
column's. All patterns are causal in raster order. What the paper's figures show beyond its words is not verified.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def full(height: int, width: int) -> Tensor:
    """Every earlier place, and itself."""
    n = height * width
    return torch.ones(n, n, dtype=torch.bool).tril()


def row(height: int, width: int) -> Tensor:
    """The last width + 1 places, itself included: back to the same column of the row above."""
    place = torch.arange(height * width)
    back = place[:, None] - place[None, :]
    return (back >= 0) & (back <= width)


def column(height: int, width: int) -> Tensor:
    """The row pattern of the transposed grid, as far as it is causal: all above, itself and its left neighbour."""
    place = torch.arange(height * width)
    transposed = (place % width) * height + place // width
    back = transposed[:, None] - transposed[None, :]
    return (back >= 0) & (back <= height) & full(height, width)


def convolution(height: int, width: int, kernel: int = 11) -> Tensor:
    """The earlier half of a kernel x kernel neighbourhood, wrapping around where rows end."""
    place = torch.arange(height * width)
    reach = kernel // 2
    mask = torch.zeros(height * width, height * width, dtype=torch.bool)
    for up in range(reach + 1):
        for aside in range(-reach, reach + 1):
            mask |= place[:, None] - place[None, :] == up * width - aside
    return mask & full(height, width)


PATTERNS: dict[str, Callable[[int, int], Tensor]] = {
    "full": full,
    "row": row,
    "column": column,
    "convolution": convolution,
}


def layers(kind: str, depth: int) -> list[str]:
    """The pattern of each layer: "full" everywhere, or "sparse": row, column, row, row, ... and last, convolution."""
    if kind == "full":
        return ["full"] * depth
    if kind == "sparse":
        return ["column" if i % 4 == 1 else "row" for i in range(depth - 1)] + ["convolution"]
    raise ValueError(f"model.attention: no pattern '{kind}' (known: sparse, full)")


def with_text(image: Tensor, text: int) -> Tensor:
    """A mask over `text` positions and then the image's places: text is causal, the image sees all of it.

    image: (n, n); returns (text + n, text + n).
    """
    n = len(image)
    mask = torch.zeros(text + n, text + n, dtype=torch.bool)
    mask[:text, :text] = torch.ones(text, text, dtype=torch.bool).tril()
    mask[text:, :text] = True
    mask[text:, text:] = image
    return mask
