"""What the tasks of diffusion share: a process from a recipe's words, and training samples under its noise."""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..diffusion.process import PredictionType, Process, Variance
from ..diffusion.schedules import SCHEDULES
from ..nn.noise import TrainingStream, normal, uniform

if TYPE_CHECKING:
    Schedule = str
else:
    Schedule = Literal[tuple(SCHEDULES)]  # so that a new schedule is only an entry of SCHEDULES


def make_process(
    schedule: Schedule, steps: int, prediction_type: PredictionType = "eps", variance: Variance = "small"
) -> Process:
    """Raises ValueError for a number of steps that the schedule does not take."""
    if not 1 <= steps <= 100_000:
        raise ValueError(f"task.steps: {steps} is not between 1 and 100000")
    with torch.device("cpu"):  # its tables are numbers also where a model is shapes without weights
        return Process(SCHEDULES[schedule](steps), prediction_type, variance)


def check_timestep_shift(timestep_shift: float) -> float:
    """Return a valid timestep shift. Raises ValueError."""
    if timestep_shift <= 0:
        raise ValueError(f"task.timestep_shift: {timestep_shift} is not over 0")
    return timestep_shift


def add_noise(
    process: Process, image: Tensor, seeds: Tensor, timestep_shift: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images at random timesteps, (x, t, eps), each from the sample's own seed. image: (B, ...); seeds:
    (B,).

    timestep_shift: above 1, more of the timesteps are noisy. Esser et al. 2024, section 5.3.2.
    """
    share = uniform(seeds, 1, stream=TrainingStream.TIMESTEP)[:, 0]
    t = (timestep_shift * share / (1 + (timestep_shift - 1) * share) * len(process)).long().clamp(max=len(process) - 1)
    eps = normal(seeds, *image.shape[1:], stream=TrainingStream.DIFFUSION)
    return process.noise(image, t, eps), t, eps
