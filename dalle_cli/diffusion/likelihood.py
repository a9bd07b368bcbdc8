"""The likelihood of images under a diffusion model, in bits per dimension."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .loss import normal_kl, variational_bound
from .process import Denoiser, Process, timesteps_like
from .samplers import Noise


@torch.no_grad()
def bits_per_dimension(
    process: Process, denoise: Denoiser, x0: Tensor, steps: Sequence[int], noise: Noise = torch.randn_like
) -> Tensor:
    """Return the variational bound on the negative log-likelihood of data, summed over `steps`, (B,).

    In bits per dimension. x0: (B, ...) with 256 levels in [-1, 1]. Nichol and Dhariwal 2021, section 2.2.
    """
    kept = process.respaced(steps)
    alpha, sigma = kept.level(len(kept) - 1)
    zero = torch.zeros_like(x0)
    total = normal_kl(alpha * x0, zero + 2 * math.log(sigma), zero, zero).flatten(1).mean(dim=1) / math.log(2)
    for i, step in enumerate(steps):
        x = kept.noise(x0, timesteps_like(i, x0), noise(x0))
        total += variational_bound(kept, denoise(x, timesteps_like(step, x0)), x0, x, timesteps_like(i, x0))
    return total
