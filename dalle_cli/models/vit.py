"""Vision Transformer of CLIP (Radford et al. 2021, section 2.4), and the pre-norm transformer that both towers share.

Parameter names are those of the published weights. Shapes: B batch, N tokens, w width.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..nn.attention import SelfAttention
from ..nn.meta_init import normal
from . import models
from .clip import ImageTower

Activation = Literal["quick-gelu", "gelu"]


class LayerNorm(nn.LayerNorm):
    """Layer norm that keeps the type of its input; torch's kernels compute in float32 whatever that type is."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).to(input.dtype)  # CUDA's autocast would otherwise hand float32 on


class MLP(nn.Module):
    """w -> 4w -> w with CLIP's activation, x * sigmoid(1.702 x), or exact GELU, whose features are visibly others."""

    def __init__(self, width: int, activation: Activation = "quick-gelu"):
        super().__init__()
        self.activation = activation
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        if self.activation == "gelu":
            return self.c_proj(F.gelu(x))
        return self.c_proj(F.silu(1.702 * x).div_(1.702))  # through silu, one tensor is kept for the gradient, not two


class Block(nn.Module):
    def __init__(self, width: int, heads: int, activation: Activation = "quick-gelu"):
        super().__init__()
        self.ln_1 = LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.ln_2 = LayerNorm(width)
        self.mlp = MLP(width, activation)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        x = x + self.attn(self.ln_1(x), causal)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Pre-norm residual blocks, (B, N, w) to the same.

    gradient_checkpointing: recompute each block in the backward pass.
    """

    def __init__(self, width: int, depth: int, heads: int, activation: Activation = "quick-gelu"):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, activation) for _ in range(depth))

    def forward(self, x: Tensor, causal: bool = False, gradient_checkpointing: bool = False) -> Tensor:
        for block in self.resblocks:
            x = checkpoint(block, x, causal, use_reentrant=False) if gradient_checkpointing else block(x, causal)
        return x


@models.register("vit")
class VisionTransformer(ImageTower):
    """Image tower: square patches, a class token, and its state after the last block as the feature.

    image: (B, 3, size, size), normalized; returns (B, width). size, patch_size: in pixels. activation: quick-gelu as in
    OpenAI's weights, gelu as in most of open_clip's.

    Blocks are initialized like torch's layers, as in the published code.
    """

    def __init__(
        self, size: int, patch_size: int, width: int, depth: int, heads: int, activation: Activation = "quick-gelu"
    ):
        super().__init__(size, width)
        if size % patch_size:
            raise ValueError(f"size {size} is not divisible by patch_size {patch_size}")
        scale = width**-0.5
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.class_embedding = normal(width, std=scale)
        self.positional_embedding = normal((size // patch_size) ** 2 + 1, width, std=scale)
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, depth, heads, activation)
        self.ln_post = LayerNorm(width)

    def forward(self, image: Tensor, gradient_checkpointing: bool = False) -> Tensor:
        self.check_size(image)
        x = self.conv1(image).flatten(2).mT  # (B, N, w)
        first = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + self.positional_embedding.to(x.dtype)  # (B, 1 + N, w)
        x = self.transformer(self.ln_pre(x), gradient_checkpointing=gradient_checkpointing)
        return self.ln_post(x[:, 0])  # (B, w)
