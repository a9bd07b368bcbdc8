"""The sections of a training recipe that the loop reads: `optim`, `train`, `tracker`; and the check of a recipe."""

import re
from dataclasses import dataclass
from typing import Literal

from .. import checkpoint
from .. import recipe as recipes
from ..data import loader
from ..registry import RecipeError, bind
from .optim import Optim
from .trackers import Tracker


@dataclass(frozen=True)
class Train:
    """The `train` section.

    steps: optimizer steps of the whole run. batch_size: samples of one step, over all processes. seed: of initial
    weights, data order and noise. init_from: a checkpoint whose weights the run starts from, to continue with other
    data or another schedule. grad_accum_steps: parts in which each process works through its samples of a step.
    precision: auto is bf16 where the hardware multiplies it fast, else float32. ema_decay: decay of the averaged
    weights. save_every: a time such as 10m, or a number of steps. keep_last: saved states kept. log_every: steps.
    validate_every: steps; 0 validates only at the end. preview_every: steps; 0 only at the end. preview_images: images
    in a preview, 0 for none. max_skipped_steps: steps with a non-finite loss that are skipped before the run stops.
    compile: run the model through torch.compile. channels_last: memory layout of convolutions. fsdp: shard weights,
    gradients and optimizer state over the processes; without previews.
    """

    steps: int
    batch_size: int
    seed: int = 0
    init_from: str | None = None
    grad_accum_steps: int = 1
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    ema_decay: float = 0.999
    save_every: str = "10m"
    keep_last: int = 2
    log_every: int = 50
    validate_every: int = 1000
    preview_every: int = 1000
    preview_images: int = 16
    max_skipped_steps: int = 10
    compile: bool = False
    channels_last: bool = False
    fsdp: bool = False

    def __post_init__(self):
        minimum = {
            "steps": 1,
            "batch_size": 1,
            "grad_accum_steps": 1,
            "keep_last": 1,
            "log_every": 1,
            "seed": 0,
            "max_skipped_steps": 0,
        }
        minimum |= {"validate_every": 0, "preview_every": 0, "preview_images": 0}
        for name, low in minimum.items():
            if not low <= getattr(self, name) < 1 << 40:
                raise RecipeError(f"train.{name}: {getattr(self, name)} is not between {low} and 2^40")
        if self.batch_size % self.grad_accum_steps:
            raise RecipeError(
                f"train.batch_size: {self.batch_size} does not divide by grad_accum_steps={self.grad_accum_steps}"
            )
        if not 0 <= self.ema_decay < 1:
            raise RecipeError(f"train.ema_decay: {self.ema_decay} is not in [0, 1)")
        if self.fsdp and (self.compile or self.precision == "fp16"):
            raise RecipeError("train.fsdp: does not work with train.compile or train.precision=fp16; use bf16")
        interval(self.save_every)


SECTIONS = {"optim": Optim, "train": Train, "tracker": Tracker}


def options(recipe: dict) -> tuple[Optim, Train, Tracker]:
    """Return the three sections, typed. Raises RecipeError."""

    optim, train, tracker = (kind(**_typed(recipe, section, kind)) for section, kind in SECTIONS.items())
    return optim, train, tracker


def check(recipe: dict) -> dict:
    """Return a training recipe with all of it validated and its values typed; nothing is built. Raises RecipeError."""
    parts = checkpoint.check(recipe)  # first: without a model it is not a training recipe
    options(recipe)
    sections = {name: _typed(recipe, name, kind) for name, kind in SECTIONS.items() if name in recipe}
    return parts | sections | {"data": loader.check(recipe.get("data"))}


def _typed(recipe: dict, section: str, kind: type) -> dict:
    return bind(kind, recipes.section(recipe, section), section)


def interval(text: str) -> tuple[int, float]:
    """Return `save_every` as (steps, seconds), one of them 0."""
    if text.isdecimal():
        if int(text) < 1:
            raise RecipeError("train.save_every: 0 never saves; use a number of steps, or a time such as 10m")
        return int(text), 0.0
    return 0, seconds(text, "train.save_every")


def seconds(text: str, name: str = "--max-time") -> float:
    """Return a duration such as 30s, 10m, 3h50m or 1d in seconds. Raises RecipeError."""
    match = re.fullmatch(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", text.strip())
    if not match or not any(match.groups()):
        raise RecipeError(f"{name}: '{text}' is not a time such as 30s, 10m or 3h50m")
    return sum(int(part or 0) * unit for part, unit in zip(match.groups(), (86400, 3600, 60, 1)))
