"""A Gaussian diffusion process: how data becomes noise, and what a network's output says about the way back.

Letters are those of Ho et al. 2020: at step t, x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps. Here alpha and
sigma are the two factors. Step -1 is clean data, where alpha is 1. Tables are float64; the mathematics on samples runs
in the sample's own type.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

PredictionType = Literal["eps", "x0", "v"]
Variance = Literal["small", "large", "learned", "learned-range"]


@dataclass(frozen=True)
class Prediction:
    """What is expected of a noisy sample: x = alpha x0 + sigma eps, whatever the network predicts.

    x0, eps: as x. alpha, sigma: (B, 1, ...). variance: what the network says of the step's variance, as x (the fraction
    of beta in its logarithm for "learned-range", the logarithm itself for "learned"), None where it is fixed.
    """

    x0: Tensor
    eps: Tensor
    alpha: Tensor
    sigma: Tensor
    variance: Tensor | None = None

    @property
    def v(self) -> Tensor:
        """The velocity, alpha eps - sigma x0. Salimans and Ho 2022, section 4."""
        return self.alpha * self.eps - self.sigma * self.x0

    def with_x0(self, x0: Tensor) -> "Prediction":
        """Return the prediction with another x0, and the eps that fits it."""
        return replace(self, x0=x0, eps=self.eps + self.alpha / self.sigma * (self.x0 - x0))

    def halves(self) -> tuple["Prediction", "Prediction"]:
        """Return the predictions of the first and of the second half of the batch."""
        fields = (self.x0, self.eps, self.alpha, self.sigma, self.variance)
        first, second = zip(*((None, None) if field is None else field.chunk(2) for field in fields))
        return Prediction(*first), Prediction(*second)


Denoiser = Callable[[Tensor, Tensor], Prediction]
"""From x: (B, ...) and t: (B,) int64 to a Prediction."""


class Process:
    """A process of given noise levels, and the reading of a network that predicts one of eps, x0 and v.

    alpha_bar: (T,) falling from below 1 to above 0. variance: that of a step backwards; "small" is the posterior's,
    "large" is beta, "learned-range" lies between the two where the network says, "learned" is the network's own. With
    the learned ones the network gives twice the channels. Nichol and Dhariwal 2021, section 3.1.
    """

    def __init__(self, alpha_bar: Tensor, prediction_type: PredictionType = "eps", variance: Variance = "small"):
        alpha_bar = alpha_bar.double()
        before = torch.cat([torch.ones_like(alpha_bar[:1]), alpha_bar[:-1]])
        assert (alpha_bar < before).all(), "alpha-bar does not fall"
        assert alpha_bar[-1] > 0, "alpha-bar reaches zero"
        self.alpha_bar = alpha_bar
        self.prediction_type: PredictionType = prediction_type
        self.variance: Variance = variance

        # q(x_{t-1} | x_t, x0), Ho et al. 2020, equations 6 and 7
        self.beta = 1 - alpha_bar / before
        self.posterior_variance = self.beta * (1 - before) / (1 - alpha_bar)
        self.posterior_x0 = self.beta * before.sqrt() / (1 - alpha_bar)
        self.posterior_x = (1 - before) * (1 - self.beta).sqrt() / (1 - alpha_bar)
        # the first step's variance is zero; that of the second replaces it where a logarithm or a scale is needed
        second = self.posterior_variance[1:2] if len(alpha_bar) > 1 else self.beta
        self.log_variance = torch.cat([second, self.posterior_variance[1:]]).log()
        self.log_large = torch.cat([second, self.beta[1:]]).log()

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def respaced(self, steps: Sequence[int]) -> "Process":
        """Return the process that visits these ascending steps only; its step i is this one's steps[i]."""
        return Process(self.alpha_bar[list(steps)], self.prediction_type, self.variance)

    def like(self, other: "Process") -> Tensor:
        """Return the step whose noise level is nearest to each step of another process, (T of the other,) int64."""
        own, theirs = (process.alpha_bar.logit() for process in (self, other))  # signal to noise, as a logarithm
        return (theirs[:, None] - own).abs().argmin(dim=1)

    def level(self, t: int) -> tuple[float, float]:
        """alpha and sigma at a step; 1 and 0 at step -1."""
        alpha_bar = self.alpha_bar[t].item() if t >= 0 else 1.0
        return alpha_bar**0.5, (1 - alpha_bar) ** 0.5

    def noise(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Return the data x0 at steps t with the noise eps. x0, eps: (B, ...); t: (B,) int64."""
        return entries_at(self.alpha_bar.sqrt(), t, x0) * x0 + entries_at((1 - self.alpha_bar).sqrt(), t, x0) * eps

    def move(self, x: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        """x taken from step t to step s, up or down, along the noise that is in it. Song et al. 2021, section 4.3."""
        (alpha, sigma), (next_alpha, next_sigma) = self.level(t), self.level(s)
        ratio = next_alpha / alpha
        return ratio * x + (next_sigma - ratio * sigma) * eps

    def read(self, output: Tensor, x: Tensor, t: Tensor) -> Prediction:
        """Return what a network's output means. output: (B, C or 2C, ...), any float; x: (B, C, ...); t: (B,) int64.

        Raises ValueError when the output has not the channels that `variance` asks for.
        """
        learned = self.variance.startswith("learned")
        channels = x.shape[1] * (2 if learned else 1)
        if output.shape[1] != channels:
            raise ValueError(
                f"the network gives {output.shape[1]} channels where variance '{self.variance}' needs {channels}: "
                "change the model's output channels or the process's variance"
            )
        output = output.to(x.dtype)
        variance = None
        if learned:
            output, variance = output.chunk(2, dim=1)
            variance = (variance + 1) / 2 if self.variance == "learned-range" else variance
        alpha, sigma = entries_at(self.alpha_bar.sqrt(), t, x), entries_at((1 - self.alpha_bar).sqrt(), t, x)
        if self.prediction_type == "eps":
            x0, eps = (x - sigma * output) / alpha, output
        elif self.prediction_type == "x0":
            x0, eps = output, (x - alpha * output) / sigma
        else:
            x0, eps = alpha * x - sigma * output, sigma * x + alpha * output
        return Prediction(x0, eps, alpha, sigma, variance)

    def denoiser(self, network: Callable[..., Tensor], **conditions: Any) -> Denoiser:
        """Return the denoiser that a network is under fixed conditions. network: (x, t, **conditions) -> output."""
        return lambda x, t: self.read(network(x, t, **conditions), x, t)

    def posterior(self, x0: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean, as x, and log-variance, (B, 1, ...), of x one step back, for known data."""
        mean = entries_at(self.posterior_x0, t, x) * x0 + entries_at(self.posterior_x, t, x) * x
        return mean, entries_at(self.log_variance, t, x)

    def reverse(self, prediction: Prediction, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted mean, as x, and log-variance, as x or (B, 1, ...), of x one step back."""
        mean, low = self.posterior(prediction.x0, x, t)
        if self.variance == "large":
            return mean, entries_at(self.log_large, t, x)
        if prediction.variance is None:
            return mean, low
        if self.variance == "learned":
            return mean, prediction.variance
        return mean, low + prediction.variance * (entries_at(self.beta.log(), t, x) - low)


def entries_at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Return the entries of a table at steps t: (B,), as (B, 1, ...) to go with `like`: (B, ...)."""
    # the type before the device: some devices have no float64
    return table.to(like.dtype).to(like.device)[t].view(-1, *[1] * (like.dim() - 1))


def timesteps_like(t: int, like: Tensor) -> Tensor:
    """Return the same step for each sample of `like`: (B,) int64."""
    return torch.full((len(like),), t, device=like.device)
