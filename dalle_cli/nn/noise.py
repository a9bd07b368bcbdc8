"""Random numbers that belong to a sample, not to a process: the same at any batch size and number of ranks."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def uniform(seeds: Tensor, *shape: int) -> Tensor:
    """Numbers in [0, 1) for each sample from its own seed. seeds: (B,) int64; returns (B, *shape) on their device."""
    return torch.ops.dalle.noise(seeds, list(shape), False)


def normal(seeds: Tensor, *shape: int) -> Tensor:
    """Standard normal numbers for each sample from its own seed. seeds: (B,) int64; returns (B, *shape)."""
    return torch.ops.dalle.noise(seeds, list(shape), True)


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
# Not by torch.library.custom_op, which loads the compiler when it is called: a second of every command.
torch.library.define("dalle::noise", "(Tensor seeds, SymInt[] shape, bool gaussian) -> Tensor")


@torch.library.impl("dalle::noise", "default")
def _draw(seeds: Tensor, shape: list[int], gaussian: bool) -> Tensor:
    if seeds.device.type != "cpu":
        return hashed(seeds, math.prod(shape), gaussian).view(len(seeds), *shape)
    out = torch.empty(len(seeds), math.prod(shape))
    # numpy's generators, because torch's on the CPU looks at 32 bits of a seed alone
    fill = np.random.Generator.standard_normal if gaussian else np.random.Generator.random
    for row, seed in zip(out.numpy(), seeds.tolist()):
        fill(np.random.Generator(np.random.SFC64(seed % 2**64)), dtype=np.float32, out=row)
    return out.view(len(seeds), *shape)


def hashed(seeds: Tensor, count: int, gaussian: bool) -> Tensor:
    """The numbers of a GPU, (B, count): of all seeds at once, where generators would be started one after the other.

    Number i of a seed is its hash plus i steps, hashed again (Steele et al. 2014, SplitMix); normal ones come of the
    24 bits at either end (Box and Muller 1958).
    """
    places = torch.arange(1, count + 1, device=seeds.device) * -0x61C8864680B583EB
    bits = _mixed(_mixed(seeds)[:, None] + places)
    high, low = ((part & 0xFFFFFF).float() * 2**-24 for part in (bits >> 40, bits))  # in [0, 1)
    return (-2 * torch.log(1 - high)).sqrt() * torch.cos(2 * math.pi * low) if gaussian else high


def _mixed(bits: Tensor) -> Tensor:
    """SplitMix's finaliser of 64 bits. Torch shifts the sign in, so the upper bits are cut off."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        bits = (bits ^ ((bits >> shift) & ((1 << 64 - shift) - 1))) * factor
    return bits ^ ((bits >> 31) & ((1 << 33) - 1))


@torch.library.register_fake("dalle::noise")
def _(seeds: Tensor, shape: list[int], gaussian: bool) -> Tensor:
    return seeds.new_empty(len(seeds), *shape, dtype=torch.float32)
