"""ADM's classifier of noisy images (Dhariwal & Nichol 2021, section 4): the U-Net's downsampling path and an attention
pool.

Parameter names are those of the published weights. Shapes: B batch, C channels of the last level, N its positions.
"""

import torch
from torch import Tensor, nn

from ..nn.attention import attend
from ..nn.meta_init import normal
from . import models
from .adm import GroupNorm32, Layers, Order, TimeEmbedding, encoder, level_widths, split_heads


class AttentionPool(nn.Module):
    """Attention of the mean over all positions, mapped to `classes` logits. (B, C, H, W) to (B, classes)."""

    def __init__(self, positions: int, width: int, head_dim: int, classes: int):
        super().__init__()
        self.heads = width // head_dim
        self.positional_embedding = normal(width, positions + 1, std=width**-0.5)
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        x = torch.cat([x.mean(dim=-1, keepdim=True), x], dim=-1)  # (B, C, 1 + N)
        x = x + self.positional_embedding.to(x.dtype)
        q, k, v = split_heads(self.qkv_proj(x.mT), self.heads, 3, "new")
        return self.c_proj(attend(q[:, :, :1], k, v).flatten(1))


@models.register("classifier")
class Classifier(nn.Module):
    """Classify noisy images of `size` pixels; the other keys are those of the U-Net's encoder.

    size: side of the images in pixels. classes: number of classes. base_channels: channels of the first level.
    channel_mult: channels of each level, as multiples of base_channels. num_res_blocks: residual blocks per level.
    attention_factors: downsampling factors at which there is attention. head_dim: channels of an attention head.
    attention_order: layout of the attention weights (adm.py). gradient_checkpointing: recompute the layers in the
    backward pass.
    """

    def __init__(
        self,
        size: int,
        classes: int,
        base_channels: int,
        channel_mult: list[float],
        num_res_blocks: int,
        attention_factors: list[int],
        head_dim: int = 64,
        attention_order: Order = "legacy",
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        self.size, self.classes, self.gradient_checkpointing = size, classes, gradient_checkpointing
        widths = level_widths(base_channels, channel_mult, attention_factors)
        grid, rest = divmod(size, 2 ** (len(widths) - 1))
        if rest:
            raise ValueError(f"model.size: {size} does not divide by {2 ** (len(widths) - 1)}")
        layers = Layers(
            4 * base_channels, None, head_dim, None, attention_order, dropout=0.0, scale_shift=True, resample="resblock"
        )
        self.time_embed = TimeEmbedding(base_channels, 4 * base_channels)
        self.input_blocks, _ = encoder(layers, 3, widths, num_res_blocks, attention_factors)
        self.middle_block = layers.middle(widths[-1], attention=True)
        pool = AttentionPool(grid**2, widths[-1], head_dim, classes)
        self.out = nn.Sequential(GroupNorm32(widths[-1]), nn.SiLU(), pool)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the logits of every class.

        x: (B, 3, size, size) in [-1, 1], noisy; t: (B,) integer times; to (B, classes).
        """
        if x.shape[-2:] != (self.size, self.size):
            raise ValueError(f"pictures of {x.shape[-1]}x{x.shape[-2]} px for a classifier of {self.size} px")
        time = self.time_embed(t)
        gradient_checkpointing = self.gradient_checkpointing and torch.is_grad_enabled()
        for stage in [*self.input_blocks, self.middle_block]:
            x = stage(x, time, None, None, gradient_checkpointing)
        return self.out(x)
