"""Layers of ADM (Dhariwal & Nichol 2021, section 3), and the downsampling path that its U-Net and its classifier share.

Parameter names are those of the published weights; projections of the attention are linear layers here and 1x1
convolutions there. Shapes: B batch, C channels, N = H W tokens of an image, M tokens of a condition, h heads.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..hardware.capabilities import on_cpu
from ..nn.attention import attend

GROUPS = 32
Order = Literal["legacy", "new"]
Resample = Literal["resblock", "conv"]


def zero(layer: nn.Module) -> nn.Module:
    """Set all parameters of a layer to zero and return it: a branch that it ends starts by adding nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of integer times at frequencies from 1 down to 1/10000. (B,) to (B, width), float32."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, device=t.device, dtype=torch.float32))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Sequential):
    """What layers are told of the time. (B,) integers to (B, embedding); not in mixed precision, as published."""

    def __init__(self, width: int, embedding: int):
        super().__init__(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.width = width

    def forward(self, t: Tensor) -> Tensor:  # type: ignore[override]
        with unmixed(t):
            return super().forward(timestep_embedding(t, self.width).to(self[0].weight.dtype))  # type: ignore[arg-type]


def unmixed(x: Tensor) -> AbstractContextManager:
    """No mixed precision on the device of `x`, for the few layers that would lose what matters."""
    known = torch.amp.is_autocast_available(x.device.type)  # not on the meta device
    return torch.autocast(x.device.type, enabled=False) if known else nullcontext()


class GroupNorm32(nn.GroupNorm):
    """Group norm computed in float32, whatever the type of its input."""

    def __init__(self, channels: int):
        if channels % GROUPS:
            raise ValueError(f"a layer of {channels} channels: not a multiple of {GROUPS}, the groups of its norm")
        super().__init__(GROUPS, channels)

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        if not on_cpu(input) or input.dtype not in (torch.float32, torch.bfloat16):
            return F.group_norm(input.float(), self.num_groups, weight, bias, self.eps).to(input.dtype)
        if input.dtype == torch.float32 and input.ndim == 4 and not input.is_contiguous():
            # With channels last, torch computes the variance as E[x^2] - E[x]^2, which loses what is small compared
            # with the mean; of bfloat16, which has lost it before, hardly more where a mean is below some 30
            # deviations.
            input = input - self._means(input)
        return F.group_norm(input, self.num_groups, weight, bias, self.eps)  # takes bfloat16 as it is

    @torch.no_grad()  # the norm is the same whatever is subtracted
    def _means(self, input: Tensor) -> Tensor:
        """Of the groups, for every channel: (B, C, 1, 1)."""
        means = input.mean(dim=(2, 3)).unflatten(1, (self.num_groups, -1)).mean(dim=2)
        return means.repeat_interleave(input.shape[1] // self.num_groups, dim=1)[..., None, None]


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2))


class ResBlock(nn.Module):
    """Two convolutions with the time's embedding between them, which scales and shifts, or is added.

    resample: what resizes the image before the first convolution, and on the shortcut.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        embedding: int,
        dropout: float,
        scale_shift: bool,
        resample: nn.Module | None = None,
    ):
        super().__init__()
        self.scale_shift = scale_shift
        self.resample = resample
        self.in_layers = nn.Sequential(GroupNorm32(n_in), nn.SiLU(), nn.Conv2d(n_in, n_out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * n_out if scale_shift else n_out))
        last = zero(nn.Conv2d(n_out, n_out, 3, padding=1))
        self.out_layers = nn.Sequential(GroupNorm32(n_out), nn.SiLU(), nn.Dropout(dropout), last)
        self.skip_connection = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers[:2](x)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.in_layers[2](h)
        arguments = self.emb_layers(embedding).to(h.dtype)[..., None, None]
        if self.scale_shift:
            scale, shift = arguments.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
            h = self.out_layers[1:](h)
        else:
            h = self.out_layers(h + arguments)
        return self.skip_connection(x) + h


class Attention(nn.Module):
    """Attention of every position of an image to all positions, and to the tokens of a condition.

    order: how the rows of `qkv` lie: q, k, v of one head together (legacy), or all heads' q, all k, all v (new).
    tokens: (B, M, context); mask: (B, M), true where a token may be seen; x: (B, C, H, W) to the same.
    """

    def __init__(self, width: int, heads: int, context: int | None, order: Order):
        super().__init__()
        self.heads = heads
        self.order: Order = order
        self.norm = GroupNorm32(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.encoder_kv = nn.Linear(context, 2 * width) if context else None
        self.proj_out = zero(nn.Linear(width, width))

    def forward(self, x: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        q, k, v = split_heads(self.qkv(self.norm(x).flatten(2).mT), self.heads, 3, self.order)
        if self.encoder_kv is not None:
            assert tokens is not None
            text_k, text_v = split_heads(self.encoder_kv(tokens), self.heads, 2, self.order)
            k, v = torch.cat([text_k, k], dim=2), torch.cat([text_v, v], dim=2)  # (B, h, M + N, D)
        if mask is not None:
            mask = F.pad(mask, (0, q.shape[2]), value=True)[:, None, None]  # the image's own positions are all seen
        seen = attend(q, k, v, mask).transpose(1, 2).flatten(2)  # (B, N, C)
        return x + self.proj_out(seen).mT.unflatten(-1, x.shape[2:])


def split_heads(x: Tensor, heads: int, parts: int, order: Order) -> tuple[Tensor, ...]:
    """(B, N, parts * C) to `parts` tensors (B, heads, N, C / heads)."""
    if order == "legacy":
        return x.unflatten(-1, (heads, parts, -1)).permute(3, 0, 2, 1, 4).unbind()
    return x.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind()


class Stage(nn.Sequential):
    """Layers between two saved activations; each gets the inputs that it reads besides the image."""

    def forward(  # type: ignore[override]
        self, x: Tensor, embedding: Tensor, tokens: Tensor | None, mask: Tensor | None, gradient_checkpointing: bool
    ) -> Tensor:
        for layer in self:
            if isinstance(layer, ResBlock):
                arguments: tuple = (embedding,)
            elif isinstance(layer, Attention):
                arguments = (tokens, mask)
            else:
                x = layer(x)
                continue
            x = (
                checkpoint(layer, x, *arguments, use_reentrant=False)
                if gradient_checkpointing
                else layer(x, *arguments)
            )  # type: ignore
        return x


@dataclass(frozen=True)
class Layers:
    """Makes the layers of one network, and says what they have in common.

    heads: of every attention; None for as many as are `head_dim` wide.
    """

    embedding: int
    context: int | None
    head_dim: int
    heads: int | None
    order: Order
    dropout: float
    scale_shift: bool
    resample: Resample

    def resblock(self, n_in: int, n_out: int, resample: nn.Module | None = None) -> ResBlock:
        return ResBlock(n_in, n_out, self.embedding, self.dropout, self.scale_shift, resample)

    def attention(self, width: int) -> Attention:
        heads = self.heads or width // self.head_dim
        if not heads or width % heads or (not self.heads and width % self.head_dim):
            wanted = f"{self.heads} heads" if self.heads else f"heads of {self.head_dim}"
            raise ValueError(f"an attention of {width} channels cannot be split into {wanted}")
        return Attention(width, heads, self.context, self.order)

    def down(self, width: int) -> nn.Module:
        return self.resblock(width, width, nn.AvgPool2d(2)) if self.resample == "resblock" else Downsample(width)

    def up(self, width: int) -> nn.Module:
        return (
            self.resblock(width, width, nn.Upsample(scale_factor=2)) if self.resample == "resblock" else Upsample(width)
        )

    def middle(self, width: int, attention: bool) -> Stage:
        between = [self.attention(width)] if attention else []
        return Stage(self.resblock(width, width), *between, self.resblock(width, width))


def level_widths(base_channels: int, channel_mult: list[float], attention_factors: list[int]) -> list[int]:
    """Return the channels of every level. Raises ValueError for an attention at a factor that no level has."""
    factors = [2**level for level in range(len(channel_mult))]
    for factor in attention_factors:
        if factor not in factors:
            raise ValueError(
                f"model.attention_factors: {factor} is no level's factor; they are {', '.join(map(str, factors))}"
            )
    return [int(multiple * base_channels) for multiple in channel_mult]


def encoder(
    layers: Layers, n_in: int, widths: list[int], num_res_blocks: int, attention_factors: list[int]
) -> tuple[nn.ModuleList, list[int]]:
    """Return the stages of the downsampling path, and the channels of the activation that each one saves."""
    width = widths[0]
    stages, saved = [Stage(nn.Conv2d(n_in, width, 3, padding=1))], [width]
    for level, n_out in enumerate(widths):
        for _ in range(num_res_blocks):
            stage: list[nn.Module] = [layers.resblock(width, n_out)]
            width = n_out
            if 2**level in attention_factors:
                stage.append(layers.attention(width))
            stages.append(Stage(*stage))
            saved.append(width)
        if level < len(widths) - 1:
            stages.append(Stage(layers.down(width)))
            saved.append(width)
    return nn.ModuleList(stages), saved
