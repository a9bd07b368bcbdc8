"""The pre-norm transformer of GLIDE's text encoder (Nichol et al. 2022) and of unCLIP's diffusion prior.

Unlike CLIP's it has the exact GELU, and q, k and v of each head are adjacent in one product. Parameter names are those
of the published weights. Shapes: B batch, N tokens, P tokens before them, w width, H heads, D = w / H, L layers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..nn.attention import attend

KeysValues = tuple[Tensor, Tensor]  # each (B, H, N, D)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by heads {heads}")
        self.heads = heads
        self.c_qkv = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None, past: Tensor | None) -> tuple[Tensor, KeysValues]:
        q, k, v = self.c_qkv(x).unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)  # each (B, H, N, D)
        own = k, v
        if past is not None:
            k, v = torch.cat([past[:, 0], k], dim=2), torch.cat([past[:, 1], v], dim=2)
        return self.c_proj(attend(q, k, v, mask).transpose(1, 2).flatten(2)), own


class MLP(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, mask: Tensor | None = None, past: Tensor | None = None) -> tuple[Tensor, KeysValues]:
        seen, own = self.attn(self.ln_1(x), mask, past)
        x = x + seen
        return x + self.mlp(self.ln_2(x)), own


class Transformer(nn.Module):
    """Residual blocks. x: (B, N, w) to the same, and the keys and values of every layer.

    mask: boolean, broadcast to (B, H, N, P + N), true where a token may look, at least once in every row. past: keys
    and values of P tokens that come before, (B, L, 2, H, P, D). gradient_checkpointing: recompute blocks in the
    backward pass. Starts with normal weights: w^-1/2 for what reads x, (2 w L)^-1/2 for what is added to it.
    """

    def __init__(self, width: int, depth: int, heads: int):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        for name, parameter in self.named_parameters():
            if name.endswith(("c_qkv.weight", "c_fc.weight")):
                nn.init.normal_(parameter, std=width**-0.5)
            elif name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=(2 * width * depth) ** -0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, past: Tensor | None = None, gradient_checkpointing: bool = False
    ) -> tuple[Tensor, list[KeysValues]]:
        kept = []
        for layer, block in enumerate(self.resblocks):
            before = None if past is None else past[:, layer]
            if gradient_checkpointing and torch.is_grad_enabled():
                x, own = checkpoint(block, x, mask, before, use_reentrant=False)  # type: ignore[misc]
            else:
                x, own = block(x, mask, before)
            kept.append(own)
        return x, kept
