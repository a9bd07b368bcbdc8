"""Whether inpainting generates what the caption says inside the mask, and leaves the rest unchanged.

One of two objects in an unseen scene is to become another: its box is the mask, and the caption names the new object. A
system that returns its input therefore scores nothing.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from PIL import Image

from ...data.scenes import Scenes
from ...data.scenes.grammar import Scene, SceneObject, caption, held_out
from ...data.scenes.objects import load_object_set
from ...data.scenes.render import CELL, PlacedObject, place, render
from ...generate.inpaint import InpaintOptions, resolve_diffusion
from ...generate.inpaint import inpaint as generate
from ...generate.outputs import Collected
from .. import statistics
from ..checker import SceneChecker
from ..generated import (
    Generation,
    complete,
    describe_run,
    open_square,
    opened,
    request_line,
    trained_positions,
    trained_size,
    yes_no,
)
from ..protocol import Option, Progress, Result, Rows, silent, tracked
from ..samples import SEED
from ..statistics import Proportion, proportion

EXAMPLES = ("dalle evaluate inpaint --recipe unclip -n 100",)
DEFAULTS = Generation(out="out/inpaint")
TRIES = 100  # new objects tried before a scene is skipped
Box = tuple[int, int, int, int]  # left, top, width, height in pixels


@dataclass(frozen=True)
class MaskedScene:
    """An image, uint8 (S, S, 3), the box of the mask, the scene that it should become, and the new object in it."""

    image: np.ndarray
    box: Box
    scene: Scene
    obj: SceneObject

    @property
    def caption(self) -> str:
        """What the whole image should show."""
        return caption(self.scene)


@dataclass(frozen=True)
class Outcome:
    """Whether the new object is in the mask, whether it also has its color, and whether the rest is bit-identical."""

    object_in_mask: bool
    color_correct: bool
    outside_unchanged: bool


@dataclass(frozen=True)
class Inpainting(Result):
    """How many images had each outcome."""

    recipe: str
    num_images: int
    object_in_mask: Proportion
    color_correct: Proportion
    outside_unchanged: Proportion
    rows: Rows
    sheet = True

    def to_json(self) -> list[dict[str, Any]]:
        names = ("object_in_mask", "color_correct", "outside_unchanged")
        figures = statistics.to_json({name: getattr(self, name) for name in names})
        return [{"recipe": self.recipe, "num_images": self.num_images, **figures}]

    def table(self) -> list[str]:
        unchanged = self.outside_unchanged
        return [
            f"{self.num_images} unseen scenes of two objects, one of which should become another",
            f"the new object is in the mask: {self.object_in_mask}; and has its color: {self.color_correct}",
            f"outside the mask bit-identical: {unchanged.successes} of {unchanged.trials}",
        ]


def inpaint(
    recipe: Annotated[
        str, Option("System recipe, or the checkpoint of a decoder.", metavar="NAME|PATH", panel="Model")
    ] = "glide-inpaint",
    num_images: Annotated[int, Option("Unseen scenes of two objects.", 1, 1_000_000, ("-n",))] = 100,
    objects: str = "everyday",
    options: Generation = DEFAULTS,
    progress: Progress = silent,
) -> Inpainting | None:
    """Replace one of two objects by inpainting: how often the new one is there, and the rest unchanged.

    Returns None for a dry run. Raises RecipeError, CheckpointError, Failure.
    """
    system = resolve_diffusion(options.generation(recipe), recipe, "inpainting")
    parts = system.parts
    if options.dry_run:
        return describe_run(system, num_images)
    checker = SceneChecker(load_object_set(objects))
    last = next(filter(None, (parts.get(name) for name in ("upsampler_2", "upsampler", "decoder"))))
    scenes = list(masked_scenes(num_images, trained_size(last), objects, trained_positions(parts["decoder"])))
    inputs = options.write_inputs(recipe, [(one.caption, one.image) for one in scenes])
    lines = [request_line(image=path, prompt=one.caption, box=one.box) for path, one in zip(inputs, scenes)]
    results, how = Collected(), options.to("generated").generation(recipe, InpaintOptions, lines=lines)
    paths = complete(results, generate(how, results))
    images = tracked(opened(paths), "checking", num_images, progress)
    outcomes = [check_inpainting(checker, one, image) for one, image in zip(scenes, images)]
    rows = [
        [(path, "input"), (_masked(path, one.box), "mask"), (after, yes_no(outcome.object_in_mask, one.caption))]
        for path, one, after, outcome in zip(inputs, scenes, paths, outcomes)
    ]
    return Inpainting(recipe, num_images, *summarize(outcomes), rows)


def masked_scenes(count: int, size: int, objects: str, random_positions: bool = True) -> Iterator[MaskedScene]:
    """Yield `count` unseen scenes of two objects with a mask each; the same ones at every call.

    random_positions: as the data source takes it.
    """
    source = Scenes(size, objects, scene_weights={"pair": 1.0, "relation": 1.0})
    number = 0
    while count:
        rng = random.Random(f"{SEED}/inpaint/{number}")
        number += 1
        before = source.scene(rng)
        placed = place(before, rng, random_positions)
        replaced = rng.randrange(2)
        for _ in range(TRIES):
            present = {obj.name for obj in before.objects}
            name = rng.choice([name for name in source.object_set.names if name not in present])
            obj = replace(before.objects[replaced], name=name)
            pair = (obj, before.objects[1]) if replaced == 0 else (before.objects[0], obj)
            after = replace(before, objects=pair)
            if not held_out(after):
                count -= 1
                image = render(before, placed, size, source.object_set.drawn)
                yield MaskedScene(image, box_around(placed, replaced, size), after, obj)
                break


def box_around(placed: list[PlacedObject], which: int, size: int) -> Box:
    """Return the box of one of two objects with a margin of half a cell, within its own half of the image."""
    one, other = placed[which], placed[1 - which]
    apart = "x" if abs(one.x - other.x) > abs(one.y - other.y) else "y"
    ends = []
    for axis in ("x", "y"):
        center, reach = getattr(one, axis), one.size / 2 + CELL / 2
        low, high = center - reach, center + reach
        if axis == apart:
            low, high = (low, min(high, 0.5)) if center < getattr(other, axis) else (max(low, 0.5), high)
        ends.append((round(max(low, 0.0) * size), round(min(high, 1.0) * size)))
    (left, right), (top, bottom) = ends
    return left, top, right - left, bottom - top


def check_inpainting(checker: SceneChecker, masked: MaskedScene, image: Image.Image) -> Outcome:
    """Check an inpainted image. Raises ValueError for an image of another size."""
    pixels = np.asarray(image)
    if pixels.shape != masked.image.shape:
        raise ValueError(f"an image of shape {pixels.shape}, where the input has {masked.image.shape}")
    left, top, width, height = masked.box
    outside = np.ones(pixels.shape[:2], dtype=bool)
    outside[top : top + height, left : left + width] = False
    result = checker.check(pixels, Scene((masked.obj,), None, masked.scene.background))
    centers = [(len(pixels) * (x + side / 2), len(pixels) * (y + side / 2)) for x, y, side in result.boxes]
    inside = any(left <= x < left + width and top <= y < top + height for x, y in centers)
    return Outcome(
        inside and result.correct("object"),
        inside and result.correct("object", "color"),
        bool(np.array_equal(pixels[outside], masked.image[outside])),
    )


def summarize(outcomes: Sequence[Outcome]) -> tuple[Proportion, Proportion, Proportion]:
    """Count how many images had each outcome, in the order of Outcome."""
    return (
        proportion(one.object_in_mask for one in outcomes),
        proportion(one.color_correct for one in outcomes),
        proportion(one.outside_unchanged for one in outcomes),
    )


def _masked(path: str, box: Box) -> Image.Image:
    """Return an image with its mask in gray."""
    image = open_square(path)
    left, top, width, height = box
    image.paste((128, 128, 128), (left, top, left + width, top + height))
    return image
