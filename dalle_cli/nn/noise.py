"""Random numbers that belong to a sample, not to a process: the same at any batch size and number of ranks.

A sample has one seed. What needs random numbers of its own takes them from a stream of that seed, so that two uses
never share their numbers.
"""

import math
from collections.abc import Callable
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class TrainingStream(IntEnum):
    """Uses of the seed of a training sample. The value is added to the seed."""

    AUGMENTATION = 0  # dropped texts, masks, how much an image is degraded
    DEGRADATION = 1  # the noise of a degraded image, and the crop
    TIMESTEP = 2
    DIFFUSION = 3
    RECONSTRUCTION = 4  # which images are replaced by their reconstruction


class Stream(IntEnum):
    """Uses of the seed of a generated image. The value is added to the seed."""

    IMAGE = 0  # image tokens, or x_T of the decoder and what its sampler adds
    PRIOR = 1
    UPSAMPLER = 2


def uniform(seeds: Tensor, *shape: int, stream: IntEnum = Stream.IMAGE) -> Tensor:
    """Return numbers in [0, 1), (B, *shape), each row from its own seed, on the device of the seeds: (B,) int64."""
    return torch.ops.dalle.noise(seeds + stream, list(shape), False)


def normal(seeds: Tensor, *shape: int, stream: IntEnum = Stream.IMAGE) -> Tensor:
    """Return standard normal numbers, (B, *shape), each row from its own seed, on the device of the seeds: (B,) int64.

    CPU and GPU make different numbers of a seed: training only needs them to be the same at any batch size.
    """
    return torch.ops.dalle.noise(seeds + stream, list(shape), True)


def noise_source(seeds: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that gives standard normal numbers as its argument, (B, ...): new ones at each call.

    seeds: (B,) int64; each row has its own generator. They run on the CPU, so that a seed means the same numbers on
    every device.
    """
    generators = [np.random.Generator(np.random.SFC64(seed % 2**64)) for seed in seeds.tolist()]

    def more(like: Tensor) -> Tensor:
        rows = [generator.standard_normal(like.shape[1:], dtype=np.float32) for generator in generators]
        return torch.from_numpy(np.stack(rows)).to(like)

    return more


# A torch operator, so that it has a shape where tensors have no data (training/estimate.py, torch.compile). Not by
# torch.library.custom_op, which loads the compiler when it is called: a second of every command.
torch.library.define("dalle::noise", "(Tensor seeds, SymInt[] shape, bool gaussian) -> Tensor")


@torch.library.impl("dalle::noise", "default")
def _noise(seeds: Tensor, shape: list[int], gaussian: bool) -> Tensor:
    if seeds.device.type != "cpu":
        return hashed_noise(seeds, math.prod(shape), gaussian).view(len(seeds), *shape)
    out = torch.empty(len(seeds), math.prod(shape))
    # numpy's generators: torch's CPU generator reads only 32 bits of a seed
    fill = np.random.Generator.standard_normal if gaussian else np.random.Generator.random
    for row, seed in zip(out.numpy(), seeds.tolist()):
        fill(np.random.Generator(np.random.SFC64(seed % 2**64)), dtype=np.float32, out=row)
    return out.view(len(seeds), *shape)


def hashed_noise(seeds: Tensor, count: int, gaussian: bool) -> Tensor:
    """Return the numbers of a GPU, (B, count), for all seeds at once: it cannot start a generator for each row.

    Number i of a seed is the hash of its hash plus i steps (Steele et al. 2014, SplitMix); normal numbers come from the
    24 bits at either end (Box and Muller 1958).
    """
    steps = torch.arange(1, count + 1, device=seeds.device) * -0x61C8864680B583EB
    bits = _mix(_mix(seeds)[:, None] + steps)
    high, low = ((part & 0xFFFFFF).float() * 2**-24 for part in (bits >> 40, bits))  # in [0, 1)
    return (-2 * torch.log(1 - high)).sqrt() * torch.cos(2 * math.pi * low) if gaussian else high


def _mix(bits: Tensor) -> Tensor:
    """Apply SplitMix's finalizer to 64 bits. Torch shifts the sign in, so the upper bits are masked."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        bits = (bits ^ ((bits >> shift) & ((1 << 64 - shift) - 1))) * factor
    return bits ^ ((bits >> 31) & ((1 << 33) - 1))


@torch.library.register_fake("dalle::noise")
def _(seeds: Tensor, shape: list[int], gaussian: bool) -> Tensor:
    return seeds.new_empty(len(seeds), *shape, dtype=torch.float32)
