"""Random numbers that belong to a sample, not to a process: the same at any batch size and number of ranks."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def uniform(seeds: Tensor, *shape: int) -> Tensor:
    """Numbers in [0, 1) for each sample from its own seed. seeds: (B,) int64; returns (B, *shape) on their device."""
    return _each(seeds, shape, np.random.Generator.random, torch.rand)


def normal(seeds: Tensor, *shape: int) -> Tensor:
    """Standard normal numbers for each sample from its own seed. seeds: (B,) int64; returns (B, *shape)."""
    return _each(seeds, shape, np.random.Generator.standard_normal, torch.randn)


def stream(seeds: Tensor) -> Callable[[Tensor], Tensor]:
    """Standard normal numbers as its argument (B, ...), more of them at each call, for each sample from its own seed.

    seeds: (B,) int64. The numbers are made on the CPU, so that they are the same on any device.
    """
    generators = [np.random.Generator(np.random.SFC64(seed % 2**64)) for seed in seeds.tolist()]

    def more(like: Tensor) -> Tensor:
        rows = [one.standard_normal(like.shape[1:], dtype=np.float32) for one in generators]
        return torch.from_numpy(np.stack(rows)).to(like)

    return more


def _each(seeds: Tensor, shape: tuple[int, ...], on_cpu: Callable, elsewhere: Callable) -> Tensor:
    out = torch.empty(len(seeds), math.prod(shape), device=seeds.device)
    if seeds.device.type == "cpu":  # numpy's generators, because torch's there looks at 32 bits of a seed alone
        for row, seed in zip(out.numpy(), seeds.tolist()):
            on_cpu(np.random.Generator(np.random.SFC64(seed % 2**64)), dtype=np.float32, out=row)
    else:
        generator = torch.Generator(seeds.device)
        for row, seed in zip(out, seeds.tolist()):
            elsewhere(row.shape, generator=generator.manual_seed(seed), out=row, device=seeds.device)
    return out.view(len(seeds), *shape)
