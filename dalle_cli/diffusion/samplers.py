"""Samplers: functions from noise to data over a denoiser.

Each takes x at the last of `steps`, ascending steps of the process, and walks down them to clean data. `noise` gives
standard normal numbers as its argument; `on_step` is called at each step with t and the expected data.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .guidance import Gradient
from .process import Denoiser, Process, timesteps_like

Noise = Callable[[Tensor], Tensor]
StepCallback = Callable[[int, Tensor], Any]
Sampler = Callable[..., Tensor]


@torch.no_grad()
def ddpm(
    process: Process,
    denoise: Denoiser,
    x: Tensor,
    steps: Sequence[int],
    noise: Noise = torch.randn_like,
    on_step: StepCallback | None = None,
    mean_gradient: Gradient | None = None,
) -> Tensor:
    """Ancestral sampling, with the process's variance. Ho et al. 2020, algorithm 2.

    mean_gradient: a gradient that moves each step's mean by itself times the variance. Dhariwal and Nichol 2021,
    algorithm 1.
    """
    kept = process.respaced(steps)
    for i in reversed(range(len(steps))):
        t = timesteps_like(steps[i], x)
        prediction = denoise(x, t)
        if on_step:
            on_step(steps[i], prediction.x0)
        mean, log_variance = kept.reverse(prediction, x, timesteps_like(i, x))
        if mean_gradient:
            mean = mean + log_variance.exp() * mean_gradient(x, t)
        x = mean + (log_variance / 2).exp() * noise(x) if i else mean
    return x


@torch.no_grad()
def ddim(
    process: Process,
    denoise: Denoiser,
    x: Tensor,
    steps: Sequence[int],
    noise: Noise = torch.randn_like,
    on_step: StepCallback | None = None,
    eta: float = 0.0,
) -> Tensor:
    """From noise to data along a fixed way at eta 0, as random as the small-variance `ddpm` at eta 1.

    Song et al. 2021, equations 12 and 16.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta {eta} is not between 0 and 1")
    for t, s in pairwise([*reversed(steps), -1]):
        prediction = denoise(x, timesteps_like(t, x))
        if on_step:
            on_step(t, prediction.x0)
        (alpha, sigma), (next_alpha, next_sigma) = process.level(t), process.level(s)
        fresh = eta * next_sigma / sigma * math.sqrt(1 - (alpha / next_alpha) ** 2)
        x = next_alpha * prediction.x0 + math.sqrt(next_sigma**2 - fresh**2) * prediction.eps
        if fresh:
            x = x + fresh * noise(x)
    return x


@torch.no_grad()
def plms(
    process: Process,
    denoise: Denoiser,
    x: Tensor,
    steps: Sequence[int],
    noise: Noise = torch.randn_like,
    on_step: StepCallback | None = None,
) -> Tensor:
    """Linear multistep over eps, of the fourth order once four are known; without noise. Liu et al. 2022, section 3.3.

    Begins with the lower orders; their Runge-Kutta start asks the network twelve times more, and leaves the data far
    behind where alpha is as small as at the cosine schedule's end.
    """
    earlier: list[Tensor] = []
    for t, s in pairwise([*reversed(steps), -1]):
        prediction = denoise(x, timesteps_like(t, x))
        if on_step:
            on_step(t, prediction.x0)
        earlier = [prediction.eps, *earlier[:3]]
        eps = torch.zeros_like(x)
        for weight, one in zip(_ADAMS_BASHFORTH[len(earlier)], earlier):
            eps = eps + weight * one
        x = process.move(x, eps, t, s)
    return x


_ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


@torch.no_grad()
def dpm_solver(
    process: Process,
    denoise: Denoiser,
    x: Tensor,
    steps: Sequence[int],
    noise: Noise = torch.randn_like,
    on_step: StepCallback | None = None,
) -> Tensor:
    """DPM-Solver++(2M): second-order multistep over x0 in the logarithm of alpha / sigma; without noise.

    The last two steps, long ones in that measure, are of the first order. Lu et al. 2022b, algorithm 2.
    """
    last_x0, last_step = x, 0.0
    for t, s in pairwise([*reversed(steps), -1]):
        prediction = denoise(x, timesteps_like(t, x))
        if on_step:
            on_step(t, prediction.x0)
        (alpha, sigma), (next_alpha, next_sigma) = process.level(t), process.level(s)
        shrink = next_sigma / sigma * alpha / next_alpha  # exp(-step)
        x0, step = prediction.x0, -math.log(shrink) if s >= 0 else math.inf
        if last_step and s > steps[0]:
            x0 = x0 + step / (2 * last_step) * (x0 - last_x0)
        x = next_sigma / sigma * x + next_alpha * (1 - shrink) * x0
        last_x0, last_step = prediction.x0, step
    return x


@torch.no_grad()
def ddim_inversion(
    process: Process, denoise: Denoiser, x: Tensor, steps: Sequence[int], inversion_iters: int = 0
) -> Tensor:
    """Return the noise from which `ddim` with the same steps reconstructs the clean data x.

    Use it without a threshold, which would lose what it clamps. inversion_iters: fixed-point iterations of each step
    with the prediction at its end, for which `ddim` reconstructs exactly; 0 takes the prediction at its beginning.
    Dhariwal and Nichol 2021, appendix F; Ramesh et al. 2022, section 3.
    """
    for s, t in pairwise([-1, *steps]):
        start = denoise(x, timesteps_like(max(s, steps[0]), x))  # no network knows step -1
        end = process.move(x, start.eps, s, t)
        (alpha, sigma), (next_alpha, next_sigma) = process.level(s), process.level(t)
        across, along = next_sigma * alpha - next_alpha * sigma, next_alpha * alpha + next_sigma * sigma
        for _ in range(inversion_iters):
            # A step turns (x, v) by an angle, of this sine and cosine. Solved for v it converges at both ends of the
            # process; for eps it would stand still at the noisy one, for x0 at the clean one.
            prediction = denoise(end, timesteps_like(t, x))
            end = (x + across * (next_alpha * prediction.eps - next_sigma * prediction.x0)) / along
        x = end
    return x


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "plms": plms, "dpm++": dpm_solver}
