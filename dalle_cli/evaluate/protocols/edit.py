"""Whether text diffs change an attribute and keep the object (Ramesh et al. 2022, section 3.3)."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image

from ...data.scenes.grammar import Scene, caption, held_out, invent
from ...data.scenes.objects import BACKGROUNDS, COLORS, ObjectSet, load_object_set
from ...data.scenes.render import place, render
from ...generate.edit import edit as generate
from ...generate.latent_editor import LatentEditor
from ...generate.outputs import Collected
from .. import statistics
from ..checker import SceneChecker
from ..generated import (
    Generation,
    complete,
    describe_run,
    opened,
    request_line,
    trained_positions,
    trained_size,
    yes_no,
)
from ..protocol import Option, Progress, Result, Rows, silent, tracked
from ..samples import SEED
from ..statistics import Proportion, proportion

EXAMPLES = ("dalle evaluate edit -n 50 --strength 0.2,0.3,0.4",)
DEFAULTS = Generation(out="out/edit")
TRIES = 10_000
Attribute = Literal["color", "background"]


@dataclass(frozen=True)
class Edit:
    """An image of a single object, uint8 (S, S, 3), and the attribute of it to change."""

    attribute: Attribute
    before: Scene
    after: Scene
    image: np.ndarray

    @property
    def captions(self) -> tuple[str, str]:
        """The captions before and after the edit."""
        return caption(self.before), caption(self.after)


@dataclass(frozen=True)
class Outcome:
    """Whether the attribute of an edited image is the new one, and its object the same."""

    attribute: str
    attribute_changed: bool
    object_kept: bool

    @property
    def edited(self) -> bool:
        return self.attribute_changed and self.object_kept


@dataclass(frozen=True)
class Edits(Result):
    """Proportions by strength: `edited` (attribute_changed and object_kept), these two, and `edited` by attribute."""

    recipe: str
    num_images: int
    strengths: dict[float, dict[str, Proportion]]
    rows: Rows
    sheet = True

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {"recipe": self.recipe, "num_images": self.num_images, "strength": strength, **statistics.to_json(figures)}
            for strength, figures in self.strengths.items()
        ]

    def table(self) -> list[str]:
        head = f"{self.num_images} unseen scenes of single objects; edited: the attribute changed, the object kept"
        return [head] + [
            f"strength {strength:<5g} " + ", ".join(f"{name.replace('_', ' ')}: {one}" for name, one in figures.items())
            for strength, figures in self.strengths.items()
        ]


def edit(
    recipe: Annotated[str, Option("System recipe of type unclip.", metavar="NAME|PATH", panel="Model")] = "unclip",
    num_images: Annotated[int, Option("Unseen scenes of single objects.", 1, 1_000_000, ("-n",))] = 50,
    objects: str = "everyday",
    strength: Annotated[
        Sequence[float], Option("Strengths of the text diff, 0 to 1, to compare.", 0, 1, panel="Sampling")
    ] = (0.3,),
    options: Generation = DEFAULTS,
    progress: Progress = silent,
) -> Edits | None:
    """Change the color or background of single objects: how often it changes and the object stays the same.

    Returns None for a dry run. Raises RecipeError, CheckpointError, Failure.
    """
    editor = LatentEditor("edit", options.latent_options(recipe))
    if options.dry_run:
        return describe_run(editor.resolved, num_images)
    object_set, decoder, many = load_object_set(objects), editor.resolved.parts["decoder"], len(strength)
    scenes = list(edits(num_images, trained_size(decoder), object_set, trained_positions(decoder)))
    inputs = options.write_inputs(recipe, [(scene.captions[0], scene.image) for scene in scenes])
    lines = [request_line(image=path, **dict(zip(("from", "to"), one.captions))) for path, one in zip(inputs, scenes)]
    results, latent_options = Collected(), options.to("generated").latent_options(recipe)
    paths = complete(results, generate(lines, None, None, strength, latent_options, results))
    checker, images = SceneChecker(object_set), tracked(opened(paths), "checking", num_images * many, progress)
    outcomes = [check_edit(checker, scenes[i // many], image) for i, image in enumerate(images)]
    rows = [[(path, scene.captions[0])] for path, scene in zip(inputs, scenes)]
    for i, (result, outcome) in enumerate(zip(results.reported, outcomes)):
        rows[i // many].append((result["path"], yes_no(outcome.edited, f"{result['strength']:g} {result['prompt']}")))
    figures = {value: summarize(outcomes[i::many]) for i, value in enumerate(strength)}
    return Edits(recipe, num_images, figures, rows)


def edits(count: int, size: int, object_set: ObjectSet, random_positions: bool = True) -> Iterator[Edit]:
    """Yield `count` unseen scenes of one object with an edit each, of its color and of the background in turn.

    random_positions: as the data source takes it. Neither scene of an edit holds a combination that is held out of
    training. Raises ValueError for a set without such scenes.
    """
    for number in range(count):
        rng = random.Random(f"{SEED}/edit/{number}")
        attribute: Attribute = "color" if number % 2 == 0 else "background"
        for _ in range(TRIES):
            before = invent(rng, object_set, {"single": 1.0}, attribute == "background", attribute == "color")
            (obj,) = before.objects
            if attribute == "color":
                after = Scene((replace(obj, color=rng.choice([name for name in COLORS if name != obj.color])),))
            else:
                taken = {before.background, obj.color}
                after = replace(before, background=rng.choice([name for name in BACKGROUNDS if name not in taken]))
            if not held_out(before) and not held_out(after):
                break
        else:
            raise ValueError(f"objects '{object_set.name}' give no scenes to edit that training shows")
        yield Edit(
            attribute, before, after, render(before, place(before, rng, random_positions), size, object_set.drawn)
        )


def check_edit(checker: SceneChecker, edit: Edit, image: Image.Image) -> Outcome:
    """Check an image against the scene that it should have become."""
    result = checker.check(image, edit.after)
    return Outcome(edit.attribute, result.correct(edit.attribute), result.correct("object"))


def summarize(outcomes: Sequence[Outcome]) -> dict[str, Proportion]:
    """Return the proportions of edits of one strength."""
    figures = {
        "edited": proportion(one.edited for one in outcomes),
        "attribute_changed": proportion(one.attribute_changed for one in outcomes),
        "object_kept": proportion(one.object_kept for one in outcomes),
    }
    for attribute in dict.fromkeys(one.attribute for one in outcomes):
        figures[attribute] = proportion(one.edited for one in outcomes if one.attribute == attribute)
    return figures
