"""Objectives of diffusion models: mean squared error, and the variational bound that teaches a variance."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .process import Prediction, Process


class Loss(NamedTuple):
    """The loss of each sample, all (B,).

    total: mse plus the weighted bound. bound: None where the variance is fixed.
    """

    total: Tensor
    mse: Tensor
    bound: Tensor | None


def diffusion_loss(process: Process, output: Tensor, x0: Tensor, t: Tensor, eps: Tensor) -> Loss:
    """Return the loss of a network's output at steps t, for the data x0 with the noise eps.

    Mean squared error of what the process predicts. With a learned variance, the bound at t times T / 1000 is added: in
    expectation the hybrid objective with lambda = 0.001. The bound teaches the variance only, not the mean. Nichol and
    Dhariwal 2021, equation 16.
    """
    x = process.noise(x0, t, eps)
    prediction = process.read(output, x, t)
    truth = replace(prediction, x0=x0, eps=eps)
    error = getattr(prediction, process.prediction_type) - getattr(truth, process.prediction_type)
    mse = error.square().flatten(1).mean(dim=1)
    if prediction.variance is None:
        return Loss(mse, mse, None)
    held = replace(prediction, x0=prediction.x0.detach(), eps=prediction.eps.detach())
    vlb = variational_bound(process, held, x0, x, t)
    return Loss(mse + len(process) / 1000 * vlb, mse, vlb)


def variational_bound(process: Process, prediction: Prediction, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Return the term of the variational bound at steps t, in bits per dimension: (B,).

    The divergence of the predicted step from the true one; at step 0 the data's negative log-likelihood. prediction: of
    x, the data x0 at steps t. Ho et al. 2020, equation 5.
    """
    mean, log_variance = process.reverse(prediction, x, t)
    divergence = normal_kl(*process.posterior(x0, x, t), mean, log_variance).flatten(1).mean(dim=1)
    likelihood = log_likelihood(x0, mean, log_variance).flatten(1).mean(dim=1)
    return torch.where(t == 0, -likelihood, divergence) / math.log(2)


def normal_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """Divergence of the second of two normal distributions from the first, elementwise, in nats."""
    ratio = log_variance - other_log_variance
    distance = (mean - other_mean).square() * torch.exp(-other_log_variance)
    return (ratio.exp() - 1 - ratio + distance) / 2


def log_likelihood(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the log-probability of values with 256 levels in [-1, 1] under a normal distribution, elementwise, in
    nats.

    Each value represents all within 1/255 of it, the outermost for all beyond too. Ho et al. 2020, equation 13, with
    the approximation of the normal integral that the published models were trained with.
    """
    scale = torch.exp(-log_variance / 2)
    below = _normal_integral(scale * (x0 - mean - 1 / 255))
    above = _normal_integral(scale * (x0 - mean + 1 / 255))
    share = torch.where(x0 < -0.999, above, torch.where(x0 > 0.999, 1 - below, above - below))
    return share.clamp(min=1e-12).log()


def _normal_integral(x: Tensor) -> Tensor:
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
