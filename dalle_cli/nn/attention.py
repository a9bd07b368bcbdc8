"""Attention: one function over q, k, v used by every network, and the packed self-attention of CLIP's transformers.

Shapes: B batch, H heads, N tokens, D numbers a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hardware.capabilities import on_cpu

# On CPUs in bfloat16, torch's fused kernel takes twice as long as its parts for 257 tokens, and ten times as long for
# CLIP's 50 with its gradient. In parts, logits are rounded to bfloat16, which the fused kernel avoids. So many a
# head may be held for a gradient; beyond, they would take more memory than is saved in time. Without one they are soon
# gone: more may be held, rows of the batch one after the other.
MAX_LOGITS_WITH_GRAD, MAX_LOGITS, MAX_HELD_LOGITS = 512**2, 1536**2, 1 << 24
SHORT_ROW = 128


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Softmax attention, scaled by D^-1/2, through torch's fused kernels or, where they are slow, in parts.

    q: (B, H, N, D); k, v: (B, H, M, D); returns (B, H, N, D). mask: boolean, broadcast to (B, H, N, M), true where a
    query may look, at least once in every row. causal: the same for the lower triangle of N = M, without building it.
    """
    assert not causal or (mask is None and q.shape[-2] == k.shape[-2])
    if not _in_parts(q, k):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    if causal:
        mask = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).tril()
    rows = max(1, MAX_HELD_LOGITS // (q.shape[1] * q.shape[-2] * k.shape[-2]))
    if rows >= len(q):
        return attend_unfused(q, k, v, mask)
    masks = [mask] * len(q) if mask is None or mask.ndim < 4 or len(mask) == 1 else mask.split(rows)
    parts = zip(q.split(rows), k.split(rows), v.split(rows), masks)
    return torch.cat([attend_unfused(*part) for part in parts])


def _in_parts(q: Tensor, k: Tensor) -> bool:
    logits = q.shape[-2] * k.shape[-2]
    held = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)
    return on_cpu(q) and q.dtype == torch.bfloat16 and logits <= (MAX_LOGITS_WITH_GRAD if held else MAX_LOGITS)


def attend_unfused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention by two products and a softmax between, whose input has the type of q; arguments of `attend`."""
    logits = (q * q.shape[-1] ** -0.5) @ k.mT  # (B, H, N, M)
    if mask is not None:
        logits += torch.zeros_like(mask, dtype=logits.dtype).masked_fill_(~mask, float("-inf"))
    # float32's is the faster kernel for short rows and gives the same; for a gradient it would be held, twice the bytes
    short = logits.shape[-1] < SHORT_ROW and not logits.requires_grad
    kind = torch.float32 if short else logits.dtype
    return logits.softmax(dim=-1, dtype=kind).to(v.dtype) @ v


def attend_by_line(q: Tensor, k: Tensor, v: Tensor, text: int, mask: Tensor, transposed: bool = False) -> Tensor:
    """Attention of `text` positions, causal, and then an image whose lines see the text and the lines just before.

    A sparse pattern costs what it sees, not the square of the stream. q, k, v: (B, H, text + L * C, D), the image in
    raster order; mask: (L, C, m * C), what each of the C positions of a line sees of the last m lines, its own the last
    (nn/masks.py: band). transposed: lines are columns of the image, else rows.
    """
    lines, positions, width = mask.shape
    before = width // positions - 1

    def by_line(x: Tensor) -> Tensor:  # (B, H, L, C, D)
        image = x[:, :, text:].unflatten(2, (positions, lines) if transposed else (lines, positions))
        return image.transpose(2, 3) if transposed else image

    def nearby(x: Tensor) -> Tensor:  # (B, H, L, m * C, D)
        padded = F.pad(by_line(x), (0, 0, 0, 0, before, 0))
        return torch.cat([padded[:, :, back : back + lines] for back in range(before + 1)], dim=3)

    queries = by_line(q) * q.shape[-1] ** -0.5
    to_text = queries.flatten(2, 3) @ k[:, :, :text].mT  # one product for all lines
    to_lines = (queries @ nearby(k).mT).masked_fill(~mask, float("-inf"))
    logits = torch.cat([to_text.unflatten(2, (lines, positions)), to_lines], dim=-1)
    of_text, of_lines = logits.softmax(dim=-1).to(v.dtype).split([text, width], dim=-1)
    image = (of_text.flatten(2, 3) @ v[:, :, :text]).unflatten(2, (lines, positions)) + of_lines @ nearby(v)
    image = (image.transpose(2, 3) if transposed else image).flatten(2, 3)
    words = attend(q[:, :, :text], k[:, :, :text], v[:, :, :text], causal=True)
    return torch.cat([words, image], dim=2)


class SelfAttention(nn.Module):
    """Multi-head self-attention with q, k and v in one product; parameter names of torch's own module.

    x: (B, N, width) to the same. Starts as torch's module does; CLIP's text encoder sets its own scale.
    Source: Radford et al. 2021, section 2.4.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by heads {heads}")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def project(self, x: Tensor) -> Tensor:
        """q, k and v side by side. (B, N, width) to (B, N, 3 * width)."""
        return F.linear(x, self.in_proj_weight, self.in_proj_bias)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        q, k, v = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, N, D)
        return self.out_proj(attend(q, k, v, causal=causal).transpose(1, 2).flatten(2))
