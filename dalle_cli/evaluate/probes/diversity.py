"""How different the images of one caption are: a higher guidance scale trades diversity for fidelity.

Ramesh et al. 2022, section 5.4 (figures 9 to 11), who ask people; here by CLIP features and the scene checker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from ...checkpoint import resolve
from ...data.scenes.objects import load_object_set
from ...exits import USAGE, Failure
from .. import plot, suite
from ..checker import SceneChecker
from ..compare import Comparison, features
from ..generated import Files, accuracy
from ..protocol import Option, Result
from ..statistics import Mean, Proportion, mean

EXAMPLES = ("dalle probe diversity --guidance-scale 1,2,3 --num-captions 25 -n 4 --sheet diversity.png",)
DEFAULTS = Files(out="out/diversity")


@dataclass(frozen=True)
class Point:
    """A system at a guidance scale: how many images are correct, and how different those of a caption are."""

    recipe: str
    guidance_scale: float
    accuracy: Proportion
    diversity: Mean

    def to_json(self) -> dict[str, Any]:
        """Return the figures; the interval of a single caption is null."""
        return {
            "recipe": self.recipe,
            "guidance_scale": self.guidance_scale,
            "num_images": self.accuracy.trials,
            "accuracy": self.accuracy.value,
            "accuracy_interval": self.accuracy.interval,
            "diversity": self.diversity.value,
            "diversity_interval": self.diversity.interval if self.diversity.count > 1 else None,
        }


@dataclass(frozen=True)
class Diversity(Result):
    """The points, by system and guidance scale; the sheet is their plot."""

    points: tuple[Point, ...]
    sheet = True

    def to_json(self) -> list[dict[str, Any]]:
        return [point.to_json() for point in self.points]

    def table(self) -> list[str]:
        lines = [f"{'system':<16} {'scale':>6}  {'accuracy (95 % interval)':<26} diversity (1 - cosine)"]
        for one in self.points:
            lines.append(f"{one.recipe:<16} {one.guidance_scale:>6g}  {one.accuracy!s:<26} {one.diversity}")
        return lines

    def curves(self) -> dict[str, list[float]]:
        """Return the values of each system and figure in the order of the guidance scales."""
        curves: dict[str, list[float]] = {}
        for one in self.points:
            curves.setdefault(f"{one.recipe}, accuracy", []).append(one.accuracy.value)
            curves.setdefault(f"{one.recipe}, diversity", []).append(min(max(one.diversity.value, 0.0), 1.0))
        return curves

    def save_sheet(self, path: str) -> None:
        scales = list(dict.fromkeys(one.guidance_scale for one in self.points))
        plot.draw("guidance scale", scales, self.curves(), path)


def diversity(
    num_captions: Annotated[int, Option("Captions of the suite.", 1, 100_000)] = 25,
    num_images: Annotated[int, Option("Images per caption, at least 2.", 1, 1_000_000, ("-n",), panel="Sampling")] = 4,
    objects: str = "everyday",
    recipe: Annotated[str, Option("A diffusion system.", metavar="NAME|PATH", panel="Model")] = "unclip",
    baseline: Annotated[str, Option("The system to compare with.", metavar="NAME|PATH", panel="Model")] = "glide",
    guidance_scale: Annotated[Sequence[float], Option("Guidance scales to compare.", 0, 999, panel="Sampling")] = (
        1.0,
        2.0,
        3.0,
    ),
    clip: Annotated[
        str, Option("The CLIP whose features measure diversity.", metavar="NAME|PATH", panel="Model")
    ] = "starter/clip",
    batch_size: int | None = None,
    dry_run: bool = False,
    options: Files = DEFAULTS,
) -> Diversity | None:
    """Generate captions several times at several guidance scales: how often correct, and how different.

    Returns None for a dry run. Raises RecipeError, CheckpointError, Failure.
    """  # fmt: skip
    if num_images < 2:
        raise Failure("-n 1: diversity needs at least two images per caption", USAGE)
    object_set = load_object_set(objects)
    resolve(clip)
    captions = [item.caption for item in suite.suite(object_set, num_captions)]
    comparison = Comparison((recipe, baseline), captions, num_images, guidance_scale, options, batch_size, dry_run)
    if dry_run:
        return None
    comparison.generate()
    checker, points = SceneChecker(object_set), []
    for (name, scale), results in comparison.generated.items():
        spreads = [spread(one) for one in features(results, clip, options.precision)]
        correct = accuracy(checker, [result for row in results for result in row])
        points.append(Point(name, scale or 0.0, correct, mean(spreads)))
    return Diversity(tuple(points))


def spread(features: Tensor) -> float:
    """Return the mean of 1 - cosine over all pairs of images. features: (N, e), of unit length, N at least 2."""
    count = len(features)
    if count < 2:
        raise ValueError(f"diversity of {count} images: generate at least two per caption")
    similarity = features.double() @ features.double().T
    return 1 - ((similarity.sum() - similarity.diagonal().sum()) / (count * (count - 1))).item()
