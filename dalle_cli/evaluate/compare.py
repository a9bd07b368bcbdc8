"""Several systems that generate images of the same captions, for `dalle probe binding` and `dalle probe diversity`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import checkpoint
from ..exits import USAGE, Failure
from ..generate.options import print_dry_run
from ..generate.outputs import Collected
from ..generate.sample import SampleOptions, sample
from ..registry import RecipeError
from ..systems import device
from ..systems.loading import resolve, system_class
from ..systems.scorer import BATCH, Scorer
from .generated import Files
from .protocol import Rows

Generated = list[list[dict[str, Any]]]
"""Results by caption."""


@dataclass
class Comparison:
    """What all systems generate, and how; `generated` holds their results, by system and guidance scale.

    num_images: per caption. scales: guidance scales; None is the recipe's. Everything that can be wrong without a
    model is checked when a comparison is made. Raises RecipeError, CheckpointError, Failure.
    """

    recipes: Sequence[str]
    captions: Sequence[str]
    num_images: int
    scales: Sequence[float | None]
    options: Files
    batch_size: int | None = None
    dry_run: bool = False
    generated: dict[tuple[str, float | None], Generated] = field(default_factory=dict)

    def __post_init__(self):
        if len(set(self.recipes)) < len(self.recipes):
            raise Failure(f"{self.recipes[0]} compared with itself: give --baseline another system", USAGE)
        self.names = [Path(recipe).stem for recipe in self.recipes]
        if len(set(self.names)) < len(self.names):
            self.names = [f"{number}-{name}" for number, name in enumerate(self.names)]
        for recipe in self.recipes:
            self._check(recipe)

    def _check(self, recipe: str) -> None:
        """Check a system with its options, and describe it in a dry run."""
        if not system_class(recipe).shows_denoising:
            raise RecipeError(f"{recipe}: only diffusion systems are compared, such as glide")
        resolved = [resolve(recipe, self._sampling(scale)) for scale in self.scales][-1]
        if self.dry_run:
            work = f"{len(self.captions)} captions x {self.num_images} images x {len(self.scales)} guidance scales"
            print_dry_run(resolved, work)
        for source in filter(None, resolved.parts.values()):
            checkpoint.resolve(str(source))

    def generate(self) -> None:
        """Generate all images, in a folder for each system, and in it one for each of several guidance scales."""
        options = self.options
        for recipe, name in zip(self.recipes, self.names):
            for scale in self.scales:
                folder = name + (f"/guidance-scale-{scale:g}" if len(self.scales) > 1 else "")
                how = options.to(folder).generation(
                    recipe,
                    SampleOptions,
                    sampling=self._sampling(scale),
                    num_images=self.num_images,
                    batch_size=self.batch_size,
                )
                results = Collected()
                sample(self.captions, how, results=results)
                starts = range(0, len(results.reported), self.num_images)
                self.generated[name, scale] = [results.reported[i : i + self.num_images] for i in starts]

    def rows(self, labels: dict[str, list[list[str]]]) -> Rows:
        """Return a row of images for each caption, the systems side by side. labels: below the images, by system."""
        return [
            [
                (result["path"], label)
                for name in self.names
                for result, label in zip(self.generated[name, self.scales[0]][i], labels[name][i])
            ]
            for i in range(len(self.captions))
        ]

    def _sampling(self, scale: float | None) -> dict[str, Any]:
        return {"steps": self.options.steps, "guidance_scale": scale}


def features(results: Generated, clip: str, precision: str) -> list[Tensor]:
    """Return unit CLIP features of generated images, (N, e) for each caption."""
    scorer = Scorer(device.choose(precision), clip)
    paths = [result["path"] for row in results for result in row]
    parts = [
        scorer.images(torch.stack([scorer.read(path) for path in paths[start : start + BATCH]]))
        for start in range(0, len(paths), BATCH)
    ]
    return list(torch.cat(parts).split([len(row) for row in results]))
