"""Guidance: functions from denoisers to a denoiser, which nest under any sampler.

The published samplers apply, from the network outwards: classifier-free guidance, the kept region, the threshold, and
the gradient of a classifier or of CLIP.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .process import Denoiser, Prediction

Gradient = Callable[[Tensor, Tensor], Tensor]
"""From x: (B, ...) and t: (B,) int64 to the gradient, as x, of a log-probability."""


def classifier_free(denoise: Denoiser, scale: float) -> Denoiser:
    """Away from what is expected without the condition; 1 is no guidance. Ho and Salimans 2021, with scale = 1 + w.

    denoise: over twice the batch, closed over conditions whose first half is wanted and whose second half is null. The
    variance is that of the wanted half.
    """

    def guided(x: Tensor, t: Tensor) -> Prediction:
        wanted, null = denoise(torch.cat([x, x]), torch.cat([t, t])).halves()
        return replace(wanted, x0=torch.lerp(null.x0, wanted.x0, scale), eps=torch.lerp(null.eps, wanted.eps, scale))

    return guided


def keep_known(denoise: Denoiser, image: Tensor, mask: Tensor) -> Denoiser:
    """With the data known to be `image` where the mask, which broadcasts, is 1. Nichol et al. 2022, section 2.3."""

    def guided(x: Tensor, t: Tensor) -> Prediction:
        prediction = denoise(x, t)
        return prediction.with_x0(torch.lerp(prediction.x0, image, mask.to(x.dtype)))

    return guided


def threshold(denoise: Denoiser, limit: float = 1.0, percentile: float | None = None) -> Denoiser:
    """With x0 clamped to [-limit, limit].

    percentile: dynamic thresholding: x0 is clamped where this fraction of a sample's values ends (0.995, say), if that
    is beyond the limit, and shrunk to the limit. Saharia et al. 2022, section 2.3.
    """

    def guided(x: Tensor, t: Tensor) -> Prediction:
        prediction = denoise(x, t)
        x0 = prediction.x0
        if percentile is None:
            return prediction.with_x0(x0.clamp(-limit, limit))
        size = x0.abs().flatten(1)
        size = size.kthvalue(max(1, math.ceil(percentile * size.shape[1])), dim=1).values  # quantile() has a size limit
        size = size.clamp(min=limit).view(-1, *[1] * (x0.dim() - 1))
        return prediction.with_x0(x0.clamp(-size, size) * (limit / size))

    return guided


def gradient_guided(denoise: Denoiser, gradient: Gradient) -> Denoiser:
    """Along the gradient of a classifier, or of CLIP, added to the score; x0 is not clamped again.

    The form for DDIM and other samplers that use eps: Dhariwal and Nichol 2021, algorithm 2. For their algorithm 1, the
    ancestral form, give the same gradient to the sampler `ddpm` as its `mean_gradient`.
    """

    def guided(x: Tensor, t: Tensor) -> Prediction:
        prediction = denoise(x, t)
        step, sigma = gradient(x, t), prediction.sigma
        return replace(
            prediction, eps=prediction.eps - sigma * step, x0=prediction.x0 + sigma**2 / prediction.alpha * step
        )

    return guided


def score_gradient(score: Callable[[Tensor, Tensor], Tensor], scale: float = 1.0) -> Gradient:
    """Return the gradient with respect to x of a score of noisy samples.

    score: from x: (B, ...) and t: (B,) to (B,); a classifier's log-probability of the label, or the product of CLIP's
    embeddings times its logit scale (Nichol et al. 2022, section 2.4).
    """

    def of(x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return scale * torch.autograd.grad(score(x, t).sum(), x)[0]

    return of


def in_interval(inside: Denoiser, outside: Denoiser, low: int, high: int) -> Denoiser:
    """One denoiser at the steps low <= t <= high, another at the others.

    Guidance only at intermediate timesteps (Kynkaanniemi et al. 2024), or a network of its own for the last step. The
    steps of one call are all on the same side.
    """

    def chosen(x: Tensor, t: Tensor) -> Prediction:
        return (inside if low <= int(t[0]) <= high else outside)(x, t)

    return chosen
