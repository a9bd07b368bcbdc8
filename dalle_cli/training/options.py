"""The sections of a training recipe that the loop reads itself: `optim`, `train`, `tracker`; and the check of all."""

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

    batch_size: samples of one step, over all processes. init: a checkpoint whose weights are the first, to go on with
    other data or another schedule. accumulate: parts in which each process works through its share. ema: decay of the
    averaged weights. save_every: a time such as 10m, or a number of steps. keep: states kept. patience: steps with a
    non-finite loss that are skipped before the run stops. validate_every, preview_every: steps; 0 is only at the end.
    preview: pictures in one, 0 for none. shard: weights, gradients and moments are spread over the processes, without
    previews.
    """

    steps: int
    batch_size: int
    seed: int = 0
    init: str | None = None
    accumulate: int = 1
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    ema: float = 0.999
    save_every: str = "10m"
    keep: int = 2
    log_every: int = 50
    validate_every: int = 1000
    preview_every: int = 1000
    preview: int = 16
    patience: int = 10
    compile: bool = False
    channels_last: bool = False
    shard: bool = False

    def __post_init__(self):
        least = {"steps": 1, "batch_size": 1, "accumulate": 1, "keep": 1, "log_every": 1, "seed": 0, "patience": 0}
        least |= {"validate_every": 0, "preview_every": 0, "preview": 0}
        for name, low in least.items():
            if not low <= getattr(self, name) < 1 << 40:
                raise RecipeError(f"train.{name}: {getattr(self, name)} is not between {low} and 2^40")
        if self.batch_size % self.accumulate:
            raise RecipeError(f"train.batch_size: {self.batch_size} does not divide by accumulate={self.accumulate}")
        if not 0 <= self.ema < 1:
            raise RecipeError(f"train.ema: {self.ema} is not in [0, 1)")
        if self.shard and (self.compile or self.precision == "fp16"):
            raise RecipeError("train.shard: goes with neither train.compile nor train.precision=fp16; use bf16")
        interval(self.save_every)


SECTIONS = {"optim": Optim, "train": Train, "tracker": Tracker}


def options(recipe: dict) -> tuple[Optim, Train, Tracker]:
    """The three sections, typed. Raises RecipeError."""

    optim, train, tracker = (kind(**_typed(recipe, section, kind)) for section, kind in SECTIONS.items())
    return optim, train, tracker


def check(recipe: dict) -> dict:
    """A training recipe, all of it validated and its values typed; nothing is built. Raises RecipeError."""
    parts = checkpoint.check(recipe)  # first: a recipe without a model is no training recipe at all
    options(recipe)
    own = {name: _typed(recipe, name, kind) for name, kind in SECTIONS.items() if name in recipe}
    return parts | own | {"data": loader.check(recipe.get("data"))}


def _typed(recipe: dict, section: str, kind: type) -> dict:
    return bind(kind, recipes.section(recipe, section), section)


def interval(text: str) -> tuple[int, float]:
    """`save_every` as (steps, seconds), one of them 0."""
    if text.isdecimal():
        if int(text) < 1:
            raise RecipeError("train.save_every: 0 would never save; give steps, or a time such as 10m")
        return int(text), 0.0
    return 0, seconds(text, "train.save_every")


def seconds(text: str, name: str = "--max-time") -> float:
    """A duration such as 30s, 10m, 3h50m or 1d in seconds. Raises RecipeError."""
    match = re.fullmatch(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", text.strip())
    if not match or not any(match.groups()):
        raise RecipeError(f"{name}: '{text}' is not a time such as 30s, 10m or 3h50m")
    return sum(int(part or 0) * unit for part, unit in zip(match.groups(), (86400, 3600, 60, 1)))
