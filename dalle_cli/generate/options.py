"""The options that all creating commands share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..console import log
from ..systems.loading import ResolvedSystem, resolve


@dataclass(frozen=True)
class GenerationOptions:
    """How a creating command runs: with which system, where its files go, and how it reports.

    recipe: name or path of a system's recipe, a folder or a checkpoint; None for the command's default. sampling:
    options of the system, None where the recipe's holds. num_images: per prompt or input; None for the default of 1.
    seed: of all images; None for each request's own, or 0. batch_size: images at once; None fits the free memory.
    """

    recipe: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    num_images: int | None = None
    seed: int | None = None
    out: str = "out"
    sheet: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    json: bool = False
    dry_run: bool = False
    quiet: bool = False
    batch_size: int | None = None
    precision: str = "auto"
    offload: bool = False

    @property
    def may_replace(self) -> bool:
        """True if existing files are no error."""
        return self.overwrite or self.skip_existing

    def resolve(self, default_recipe: str) -> ResolvedSystem:
        """Return the system to generate with. Raises RecipeError, CheckpointError."""
        return resolve(self.recipe or default_recipe, self.sampling)


def print_dry_run(resolved: ResolvedSystem, work: str) -> None:
    """Print what a dry run says of a system and of the work to do, to standard error. Raises CheckpointError."""
    for line in (*resolved.summary(), work):
        log(line)
