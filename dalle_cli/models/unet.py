"""The U-Net of ADM (Dhariwal & Nichol 2021, section 3), GLIDE (Nichol et al. 2022) and unCLIP's decoder and upsamplers.

It reads a noisy image, a time, and what its conditions say (conditions.py): numbers added to the time's embedding,
tokens that every attention sees next to the image, further input channels. Parameter names are those of the published
weights. Shapes: B batch, E = 4 `channels`, M tokens of the conditions, c channels of the conditions.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hardware.capabilities import on_cpu
from . import models
from .adm import (
    GroupNorm32,
    Layers,
    Order,
    Resample,
    Stage,
    TimeEmbedding,
    encoder,
    level_widths,
    unmixed,
    zero,
)
from .conditions.base import Condition, merge


@models.register("unet")
class UNet(nn.Module):
    """U-Net over images of any size that is divisible by 2 ** (levels - 1).

    base_channels: channels of the first level. channel_mult: channels of each level, as multiples of base_channels.
    num_res_blocks: residual blocks per level. attention_factors: downsampling factors at which there is attention.
    conditions: the conditions by name, in the order of their channels and tokens. head_dim: channels of an attention
    head. heads: number of attention heads, instead of head_dim. attention_order: layout of the attention weights
    (adm.py). middle_attention: attention at the lowest resolution. scale_shift: the timestep embedding scales and
    shifts, instead of being added. resample: change resolution by residual blocks instead of plain convolutions.
    learned_variance: three more output channels for the variance. dropout: probability of dropout in residual blocks.
    patch_size: side of the squares of pixels that are processed as one position with more channels, at a fraction of
    the cost (Hoogeboom et al. 2023, section 3.3); 1 as published. position_bands: number of sine waves that encode
    positions, which the published networks infer from the borders; 0 as published. residual: the condition whose image
    is added to the prediction, such as an upsampler's small one; none as published. gradient_checkpointing: recompute
    the layers in the backward pass.
    """

    def __init__(
        self,
        base_channels: int,
        channel_mult: list[float],
        num_res_blocks: int,
        attention_factors: list[int],
        conditions: dict[str, Condition] | None = None,
        head_dim: int = 64,
        heads: int | None = None,
        attention_order: Order = "legacy",
        middle_attention: bool = True,
        scale_shift: bool = True,
        resample: Resample = "resblock",
        learned_variance: bool = True,
        dropout: float = 0.0,
        patch_size: int = 1,
        position_bands: int = 0,
        residual: str | None = None,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        if patch_size < 1:
            raise ValueError(f"model.patch_size: {patch_size} is not at least 1")
        self.learned_variance, self.patch_size, self.gradient_checkpointing = (
            learned_variance,
            patch_size,
            gradient_checkpointing,
        )
        self.residual = residual
        embedding = 4 * base_channels
        self.conditions: Any = nn.ModuleDict(conditions or {})
        for name, condition in self.conditions.items():
            if not isinstance(condition, Condition):
                raise ValueError(f"model.conditions.{name}: {type(condition).__name__} is no condition")
            condition.connect(embedding)
        self.n_in = 3 + sum(condition.channels for condition in self.conditions.values())
        if residual and (residual not in self.conditions or self.conditions[residual].channels != 3):
            raise ValueError(f"model.residual: '{residual}' is no condition that is a picture")
        context = _context(self.conditions)
        widths = level_widths(base_channels, channel_mult, attention_factors)
        self.factor = patch_size * 2 ** (len(widths) - 1)

        layers = Layers(embedding, context, head_dim, heads, attention_order, dropout, scale_shift, resample)
        self.time_embed = TimeEmbedding(base_channels, embedding)
        self.input_blocks, saved = encoder(layers, patch_size**2 * self.n_in, widths, num_res_blocks, attention_factors)
        self.places = nn.Conv2d(4 * position_bands, widths[0], 1) if position_bands else None
        self.middle_block = layers.middle(widths[-1], middle_attention)
        self.output_blocks = nn.ModuleList()
        width = widths[-1]
        for level in reversed(range(len(widths))):
            for block in range(num_res_blocks + 1):
                stage: list[nn.Module] = [layers.resblock(width + saved.pop(), widths[level])]
                width = widths[level]
                if 2**level in attention_factors:
                    stage.append(layers.attention(width))
                if level and block == num_res_blocks:
                    stage.append(layers.up(width))
                self.output_blocks.append(Stage(*stage))
        last = zero(nn.Conv2d(width, patch_size**2 * (6 if learned_variance else 3), 3, padding=1))
        self.out = nn.Sequential(GroupNorm32(width), nn.SiLU(), last)

    def encode(self, **given: Tensor | tuple) -> dict[str, Tensor]:
        """Return what all conditions add, computed once for all steps: arguments of `forward`, each (B, ...).

        given: for every condition its input, or a tuple of them. Raises ValueError when one is missing or unknown.
        """
        if given.keys() != self.conditions.keys():
            wanted, got = (", ".join(sorted(names)) or "none" for names in (self.conditions, given))
            raise ValueError(f"a network with conditions {wanted} was given {got}")
        parts = []
        for name, condition in self.conditions.items():
            inputs = given[name]
            parts.append(condition(*inputs) if isinstance(inputs, tuple) else condition(inputs))
        return merge(parts)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        embedding: Tensor | None = None,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        channels: Tensor | None = None,
    ) -> Tensor:
        """Return the prediction for noisy images x, (B, 3, H, W), at integer times t, (B,), and what `encode` gave.

        Returns (B, 3, H, W), with `learned_variance` (B, 6, H, W), the prediction first.
        """
        if channels is not None:
            if channels.shape[-2:] != x.shape[-2:]:
                sizes = [f"{picture.shape[-1]}x{picture.shape[-2]}" for picture in (channels, x)]
                raise ValueError(f"a condition of {sizes[0]} px for a picture of {sizes[1]} px")
            x = torch.cat([x, channels.to(x.dtype)], dim=1)  # (B, 3 + c, H, W)
        if x.shape[1] != self.n_in:
            raise ValueError(f"{x.shape[1]} input channels for a network of {self.n_in}; its conditions add the rest")
        if x.shape[-1] % self.factor or x.shape[-2] % self.factor:
            raise ValueError(f"pictures of {x.shape[-1]}x{x.shape[-2]} px do not divide by {self.factor}")
        if self.patch_size > 1:
            x = F.pixel_unshuffle(x, self.patch_size)
        if on_cpu(x):  # whose convolutions are faster in this layout, and hand it on
            x = x.contiguous(memory_format=torch.channels_last)
        time = self.time_embed(t)  # (B, E)
        if embedding is not None:
            time = time + embedding
        gradient_checkpointing = self.gradient_checkpointing and torch.is_grad_enabled()
        saved = []
        for stage in self.input_blocks:
            x = stage(x, time, tokens, mask, gradient_checkpointing)
            if self.places and not saved:
                x = x + self.places(position_waves(self.places.in_channels // 4, x))
            saved.append(x)
        x = self.middle_block(x, time, tokens, mask, gradient_checkpointing)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, saved.pop()], dim=1), time, tokens, mask, gradient_checkpointing)
        with unmixed(x):  # a prediction in 16 bits is noise of its own
            x = self.out(x.to(self.out[2].weight.dtype))  # type: ignore[arg-type]
        x = F.pixel_shuffle(x, self.patch_size) if self.patch_size > 1 else x
        if self.residual and channels is not None:
            position = self.input_channels()[self.residual]
            begun = channels[:, position.start - 3 : position.stop - 3].to(x.dtype)  # the noisy image comes before them
            x = torch.cat([x[:, :3] + begun, x[:, 3:]], dim=1)
        return x.contiguous()

    def input_channels(self) -> dict[str, slice]:
        """Return the input channels of the noisy image, named "", and of each condition."""
        positions, end = {"": slice(0, 3)}, 3
        for name, condition in self.conditions.items():
            if condition.channels:
                positions[name] = slice(end, end + condition.channels)
                end += condition.channels
        return positions

    def adopt(self, weights: dict[str, Tensor], source: nn.Module) -> dict[str, Tensor]:
        """Weights of a U-Net like this one that knows less: input channels which it did not read start at zero.

        So a base learns to inpaint. Nichol et al. 2022, section 2.3.
        """
        key = "input_blocks.0.0.weight"
        if not isinstance(source, UNet) or source.patch_size != self.patch_size or key not in weights:
            return weights
        positions, known, area = self.input_channels(), source.input_channels(), self.patch_size**2
        if not known.keys() < positions.keys():
            return weights
        old = weights[key]
        new = old.new_zeros(len(old), area * self.n_in, *old.shape[2:])
        for name, position in known.items():
            own = positions[name]
            new[:, area * own.start : area * own.stop] = old[:, area * position.start : area * position.stop]
        return {**weights, key: new}


def position_waves(count: int, x: Tensor) -> Tensor:
    """Return sines and cosines of the positions of x, (B, C, h, w), in height and width: (1, 4 count, h, w).

    The first is half as long as the image, the next ones each half as long as the one before. Vaswani et al. 2017,
    section 3.5.
    """
    lengths = math.pi * 2.0 ** torch.arange(1, count + 1, device=x.device)
    planes = []
    for dim in (-2, -1):
        side = x.shape[dim]
        angles = lengths[:, None] * (torch.arange(side, device=x.device) + 0.5) / side  # (count, side)
        plane = torch.cat([angles.sin(), angles.cos()])
        planes.append((plane[:, :, None] if dim == -2 else plane[:, None, :]).expand(-1, *x.shape[-2:]))
    return torch.cat(planes)[None].to(x.dtype)


def _context(conditions: nn.ModuleDict) -> int | None:
    """Return the width of the conditions' tokens, None without tokens. Raises ValueError if widths differ."""
    widths: dict[str, int] = {n: condition.context_dim for n, condition in conditions.items() if condition.context_dim}  # type: ignore[misc]
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise ValueError(f"model.conditions: tokens of different widths ({listed}); give them one")
    return next(iter(widths.values()), None)


@models.register("two-stage-unet")
class TwoStageUNet(nn.Module):
    """A U-Net for all steps but the last, and one of the same shape that was tuned for the last: Karlo's upsampler.

    first: the U-Net for all steps but the last. last: the U-Net for the last step.

    Called like a U-Net, with one timestep for all rows; conditions may have no weights, since they are computed once
    for both.
    """

    def __init__(self, first: UNet, last: UNet):
        super().__init__()
        self.first, self.last = first, last
        for name, network in (("first", first), ("last", last)):
            if not isinstance(network, UNet):
                raise ValueError(f"model.{name}: {type(network).__name__} is no U-Net")
            if any(True for _ in network.conditions.parameters()):
                raise ValueError(f"model.{name}.conditions: only conditions without weights can serve two networks")
        self.learned_variance, self.conditions, self.factor = first.learned_variance, first.conditions, first.factor

    def encode(self, **given: Tensor | tuple) -> dict[str, Tensor]:
        return self.first.encode(**given)

    def forward(self, x: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        return (self.first if t[0] > 0 else self.last)(x, t, **cond)
