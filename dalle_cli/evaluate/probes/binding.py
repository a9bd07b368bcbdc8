"""Whether systems bind attributes: two objects, two colors, and which of them belongs to which.

Ramesh et al. 2022, section 7 (figures 14 and 15): "a red cube on top of a blue cube" comes out with its colors swapped,
because an embedding of the whole image does not say which color belongs to which object.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from PIL import Image
from torch import Tensor

from ...data.scenes.grammar import Scene, SceneObject, caption, held_out
from ...data.scenes.objects import COLORS, ObjectSet, load_object_set
from .. import statistics
from ..checker import SceneChecker
from ..compare import Comparison
from ..generated import Files, opened
from ..protocol import Option, Progress, Result, Rows, silent
from ..statistics import Proportion, proportion

EXAMPLES = ("dalle probe binding --recipe unclip --baseline glide --num-captions 50 --sheet binding.png",)
DEFAULTS = Files(out="out/binding")
OUTCOMES = ("bound", "swapped", "objects")
Outcome = Mapping[str, bool]


@dataclass(frozen=True)
class Binding(Result):
    """By system: how often both objects have their colors (bound), each has the other's (swapped), both are there."""

    systems: dict[str, dict[str, Proportion]]
    rows: Rows
    sheet = True

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {"recipe": name, "num_images": figures["bound"].trials, **statistics.to_json(figures)}
            for name, figures in self.systems.items()
        ]

    def table(self) -> list[str]:
        head = f"{'system':<12} " + " ".join(f"{name:<24}" for name in OUTCOMES)
        lines = [
            f"{name:<12} " + " ".join(f"{one!s:<24}" for one in row.values()) for name, row in self.systems.items()
        ]
        return [line.rstrip() for line in (head, *lines)]


def binding(
    num_captions: Annotated[int, Option("Captions of two objects in two colors.", 1, 100_000)] = 50,
    num_images: Annotated[int, Option("Images per caption.", 1, 1_000_000, ("-n",), panel="Sampling")] = 1,
    objects: str = "everyday",
    recipe: Annotated[str, Option("A diffusion system.", metavar="NAME|PATH", panel="Model")] = "unclip",
    baseline: Annotated[str, Option("The system to compare with.", metavar="NAME|PATH", panel="Model")] = "glide",
    guidance_scale: float | None = None,
    batch_size: int | None = None,
    dry_run: bool = False,
    options: Files = DEFAULTS,
    progress: Progress = silent,
) -> Binding | None:
    """Generate two objects in two colors with two systems and check which object has which color.

    Returns None for a dry run. Raises RecipeError, CheckpointError, Failure.
    """
    object_set = load_object_set(objects)
    scenes = two_colors(object_set, num_captions)
    captions = [caption(scene) for scene in scenes]
    comparison = Comparison((recipe, baseline), captions, num_images, (guidance_scale,), options, batch_size, dry_run)
    if dry_run:
        return None
    comparison.generate()
    checker, outcomes = SceneChecker(object_set), {}
    for (name, _), results in comparison.generated.items():
        outcomes[name] = []
        for done, (scene, row) in enumerate(zip(scenes, results, strict=True), 1):
            images = opened(result["path"] for result in row)
            outcomes[name].append([check_binding(checker, scene, image) for image in images])
            progress(f"checking {name}", done, len(scenes))
    figures = {name: summarize([one for row in rows for one in row]) for name, rows in outcomes.items()}
    labels = {name: [[describe(one) for one in row] for row in rows] for name, rows in outcomes.items()}
    return Binding(figures, comparison.rows(labels))


def two_colors(object_set: ObjectSet, count: int, seed: int = 0) -> list[Scene]:
    """Return `count` scenes of two objects in two colors without held-out combinations; a function of the seed.

    Raises ValueError where a set has fewer.
    """
    rng = random.Random(f"binding/{seed}")
    scenes: dict[Scene, None] = {}
    for _ in range(40 * count):
        if len(scenes) == count:
            break
        names, colors = rng.sample(object_set.names, 2), rng.sample(list(COLORS), 2)
        scene = Scene(tuple(SceneObject(name, color) for name, color in zip(names, colors)))
        if not held_out(scene):
            scenes[scene] = None
    if len(scenes) < count:
        raise ValueError(
            f"objects '{object_set.name}' give {len(scenes)} scenes of two colors, not {count}: lower --num-captions"
        )
    return list(scenes)


def swapped(scene: Scene) -> Scene:
    """Return the scene with the colors of its two objects swapped."""
    first, second = scene.objects
    return Scene((SceneObject(first.name, second.color), SceneObject(second.name, first.color)))


def check_binding(checker: SceneChecker, scene: Scene, image: Image.Image | np.ndarray | Tensor) -> Outcome:
    """Check which of OUTCOMES an image shows; `objects`: both objects, in any color."""
    result = checker.check(image, scene)
    bound = result.correct("object", "color")
    other = not bound and checker.check(image, swapped(scene)).correct("object", "color")
    return {"bound": bound, "swapped": other, "objects": result.correct("object")}


def describe(outcome: Outcome) -> str:
    """Return an outcome in a word or two."""
    return next((name for name in OUTCOMES if outcome[name]), "not both objects")


def summarize(outcomes: Sequence[Outcome]) -> dict[str, Proportion]:
    """Return the proportion of each outcome."""
    return {name: proportion(outcome[name] for outcome in outcomes) for name in OUTCOMES}
