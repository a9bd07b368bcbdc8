"""Modified ResNet of CLIP (Radford et al. 2021, section 2.4): longer stem, anti-aliased strides, attention pool.

Parameter names are those of the published weights. Shapes: B batch, C channels, w width.
"""

from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..nn.attention import attend
from ..nn.meta_init import normal
from . import models
from .clip import ImageTower


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3, 1x1 around a shortcut; strides are average pools, before the third and on the shortcut.

    (B, n_in, H, W) to (B, 4 * planes, H / stride, W / stride).
    """

    def __init__(self, n_in: int, planes: int, stride: int):
        super().__init__()
        n_out = 4 * planes
        self.conv1, self.bn1 = nn.Conv2d(n_in, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.downsample = None
        if stride > 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out))
        nn.init.zeros_(self.bn3.weight)  # the block starts as its shortcut

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.downsample(self.pool(x)) if self.downsample else x
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.pool(F.relu(self.bn2(self.conv2(x))))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class AttentionPool(nn.Module):
    """One attention whose only query is the mean of the map. (B, C, h, w) to (B, C); tokens: h * w."""

    def __init__(self, tokens: int, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"the pooled width {width} is not divisible by heads {heads}")
        self.heads = heads
        self.positional_embedding = normal(tokens + 1, width, std=width**-0.5)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        for layer in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.normal_(layer.weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).mT  # (B, h * w, C)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding.to(x.dtype)
        projected = (self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x))
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in projected)  # (B, H, N, D)
        return attend(q, k, v).transpose(1, 2).flatten(1)


@models.register("modified-resnet")
class ModifiedResNet(ImageTower):
    """Image tower: stem, four stages of bottlenecks, attention pool.

    size: side of the images in pixels. layers: blocks of the four stages. width: channels after the stem. heads:
    attention heads of the pool. image: (B, 3, size, size), normalized; returns (B, 32 * width).
    """

    projection_bias = True

    def __init__(self, size: int, layers: list[int], width: int, heads: int):
        super().__init__(size, 32 * width)
        if size % 32 or width % 2:
            raise ValueError(f"size {size} must be a multiple of 32 and width {width} even")
        if len(layers) != 4 or min(layers) < 1:
            raise ValueError(f"layers {layers} must be the numbers of blocks of four stages")
        half = width // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, layers[0], stride=1)
        self.layer2 = self._stage(4 * width, 2 * width, layers[1], stride=2)
        self.layer3 = self._stage(8 * width, 4 * width, layers[2], stride=2)
        self.layer4 = self._stage(16 * width, 8 * width, layers[3], stride=2)
        self.attnpool = AttentionPool((size // 32) ** 2, 32 * width, heads)

    @staticmethod
    def _stage(n_in: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
        rest = (Bottleneck(4 * planes, planes, stride=1) for _ in range(blocks - 1))
        return nn.Sequential(Bottleneck(n_in, planes, stride), *rest)

    def forward(self, image: Tensor, gradient_checkpointing: bool = False) -> Tensor:
        self.check_size(image)
        x = F.relu(self.bn1(self.conv1(image)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        x = F.avg_pool2d(x, 2)  # (B, w, size / 4, size / 4)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = _checkpointed(block, x) if gradient_checkpointing else block(x)
        return self.attnpool(x)  # (B, 32 w, size / 32, size / 32) to (B, 32 w)


def _checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    output = checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(block)))
    assert isinstance(output, Tensor)
    return output


@contextmanager
def _statistics_kept(block: nn.Module):
    """While a block is computed again, its running means must not move a second time."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept):
            norm.momentum, norm.num_batches_tracked = momentum, count
