"""Random numbers that belong to a sample, not to a process: the same at any batch size and number of ranks."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def uniform(seeds: Tensor, *shape: int) -> Tensor:
    """Numbers in [0, 1) for each sample from its own seed. seeds: (B,) int64; returns (B, *shape) on their device."""
    return _draw(seeds, list(shape), False)


def normal(seeds: Tensor, *shape: int) -> Tensor:
    """Standard normal numbers for each sample from its own seed. seeds: (B,) int64; returns (B, *shape)."""
    return _draw(seeds, list(shape), True)


def stream(seeds: Tensor) -> Callable[[Tensor], Tensor]:
    """Standard normal numbers as its argument (B, ...), more of them at each call, for each sample from its own seed.

    seeds: (B,) int64. The numbers are made on the CPU, so that they are the same on any device.
    """
    generators = [np.random.Generator(np.random.SFC64(seed % 2**64)) for seed in seeds.tolist()]

    def more(like: Tensor) -> Tensor:
        rows = [one.standard_normal(like.shape[1:], dtype=np.float32) for one in generators]
        return torch.from_numpy(np.stack(rows)).to(like)

    return more


# An operator of torch's, so that it has a shape where tensors are shapes alone (training/estimate.py, torch.compile).
@torch.library.custom_op("dalle::noise", mutates_args=())
def _draw(seeds: Tensor, shape: list[int], gaussian: bool) -> Tensor:
    out = torch.empty(len(seeds), math.prod(shape), device=seeds.device)
    if seeds.device.type == "cpu":  # numpy's generators, because torch's there looks at 32 bits of a seed alone
        fill = np.random.Generator.standard_normal if gaussian else np.random.Generator.random
        for row, seed in zip(out.numpy(), seeds.tolist()):
            fill(np.random.Generator(np.random.SFC64(seed % 2**64)), dtype=np.float32, out=row)
    else:
        generator = torch.Generator(seeds.device)
        fill = torch.randn if gaussian else torch.rand
        for row, seed in zip(out, seeds.tolist()):
            fill(row.shape, generator=generator.manual_seed(seed), out=row, device=seeds.device)
    return out.view(len(seeds), *shape)


@_draw.register_fake
def _(seeds: Tensor, shape: list[int], gaussian: bool) -> Tensor:
    return seeds.new_empty(len(seeds), *shape, dtype=torch.float32)
