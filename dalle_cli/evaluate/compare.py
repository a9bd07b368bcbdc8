"""Several systems that draw the same captions, for `dalle probe binding` and `dalle probe diversity`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import checkpoint
from ..exits import USAGE, Failure
from ..generate.outputs import Collected
from ..generate.sample import Job, describe, load_system, prepare, sample
from ..generate.sheets import Cell, check_sheet, save_rows
from ..recipe import section
from ..registry import RecipeError
from ..systems import device, systems
from ..systems.scorer import BATCH, Scorer


@dataclass
class Contest:
    """What all systems draw, and how; `drawn` holds what they drew, by system and scale: results by caption.

    count: pictures of each caption. scales: of guidance; None is the recipe's own. options: of all systems. All that
    can be wrong without a model is found when a contest is made. Raises RecipeError, CheckpointError, Failure.
    """

    recipes: Sequence[str]
    captions: Sequence[str]
    count: int
    scales: Sequence[float | None]
    job: Job
    options: dict[str, Any] = field(default_factory=dict)
    drawn: dict[tuple[str, float | None], list[list[dict[str, Any]]]] = field(default_factory=dict)

    def __post_init__(self):
        if len(set(self.recipes)) < len(self.recipes):
            raise Failure(f"{self.recipes[0]} against itself: give --against another system", USAGE)
        self.names = [Path(recipe).stem for recipe in self.recipes]
        if len(set(self.names)) < len(self.names):
            self.names = [f"{number}-{name}" for number, name in enumerate(self.names)]
        for recipe in self.recipes:
            system = load_system(recipe)
            kind, _ = systems.bind(system.get("system"), "system", ("device", *section(system, "parts")))
            if not getattr(kind, "shows", False):
                raise RecipeError(f"{recipe}: only systems of diffusion are compared, such as glide")
            parts, options = {}, None
            for scale in self.scales:
                _, parts, options = prepare(system, self._given(scale))
            work = f"{len(self.captions)} captions x {self.count} pictures x {len(self.scales)} scales"
            if self.job.dry_run:
                describe(recipe, system, options, work)
            for source in filter(None, parts.values()):
                checkpoint.resolve(str(source))
        if self.job.sheet and not self.job.dry_run:
            check_sheet(self.job.sheet, self.job.overwrite or self.job.skip_existing)

    def draw(self) -> None:
        """Draw everything; pictures go to a folder for each system, and in it for each of several scales."""
        for recipe, name in zip(self.recipes, self.names):
            for scale in self.scales:
                folder = f"{self.job.out}/{name}" + (f"/scale-{scale:g}" if len(self.scales) > 1 else "")
                found = Collected()
                own = replace(self.job, words=self.captions, recipe=recipe, count=self.count, out=folder, sheet=None)
                sample(replace(own, options=self._given(scale)), found)
                rows = [found.reported[i : i + self.count] for i in range(0, len(found.reported), self.count)]
                self.drawn[name, scale] = rows

    def sheet(self, captions: dict[str, list[list[str]]]) -> None:
        """Write a row for each caption, the systems side by side. captions: what stands below, by system."""
        rows: list[list[Cell]] = []
        for i in range(len(self.captions)):
            rows.append([
                (result["path"], said)
                for name in self.names
                for result, said in zip(self.drawn[name, self.scales[0]][i], captions[name][i])
            ])  # fmt: skip
        save_rows(str(self.job.sheet), rows)

    def _given(self, scale: float | None) -> dict[str, Any]:
        return {**self.options, **({} if scale is None else {"guidance_scale": scale})}


def features(results: Sequence[Sequence[dict[str, Any]]], clip: str, precision: str) -> list[Tensor]:
    """Unit features of pictures, (N, e) for each row of results."""
    scorer = Scorer(device.choose(precision), clip)
    paths = [result["path"] for row in results for result in row]
    found = [
        scorer.pictures(torch.stack([scorer.read(path) for path in paths[start : start + BATCH]]))
        for start in range(0, len(paths), BATCH)
    ]
    return list(torch.cat(found).split([len(row) for row in results]))
