"""Common parts of protocols that generate images: their options, input scenes, and checks of the results."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
from PIL import Image

from .. import checkpoint, distributed, images, recipe
from ..data.scenes.objects import ObjectSet
from ..exits import DONE, Failure
from ..generate.latent_editor import LatentOptions
from ..generate.metadata import Origin
from ..generate.options import GenerationOptions, print_dry_run
from ..generate.outputs import Collected, Outputs
from ..generate.requests import GenerationRequest, plan_images
from ..systems.loading import ResolvedSystem
from .checker import SceneChecker
from .samples import SceneSample, unseen
from .statistics import Mean, Proportion, mean
from .suite import check_images, item_of

Options = TypeVar("Options", bound=GenerationOptions)


@dataclass(frozen=True)
class Files:
    """Where a protocol writes the images that it generates, and how it runs. steps: None is the recipe's."""

    steps: str | None = None
    seed: int | None = None
    out: str = "out"
    overwrite: bool = False
    skip_existing: bool = False
    quiet: bool = False
    precision: str = "auto"
    offload: bool = False

    def to(self, folder: str) -> Self:
        """Return the same options with a subfolder of the images' folder."""
        return replace(self, out=f"{self.out}/{folder}")

    def generation(self, recipe: str, kind: type[Options] = GenerationOptions, **more: Any) -> Options:
        """Return these as the options of a creating command. kind: their class; more: other fields, and sampling."""
        sampling = {"steps": self.steps, **more.pop("sampling", {})}
        shared = {name: value for name, value in vars(self).items() if name != "steps"}
        return kind(recipe=recipe, sampling=sampling, **(shared | more))

    def write_inputs(self, recipe: str, scenes: Iterable[tuple[str, Image.Image | np.ndarray]]) -> list[str]:
        """Write captioned images as files in the folder `inputs`, for a command to read; return their paths."""
        captions, pixels = zip(*scenes)
        items = plan_images([GenerationRequest(text) for text in captions])
        outputs = Outputs(f"{self.out}/inputs", items, self.overwrite, self.skip_existing)
        for item in outputs.todo:
            outputs.save(item, Image.fromarray(np.asarray(pixels[item.index])), Origin("evaluate", recipe, {}, {}))
        distributed.barrier()
        return [str(outputs.path(item)) for item in items]


@dataclass(frozen=True)
class Generation(Files):
    """The same for systems that are guided. guidance_scale: None is the recipe's."""

    guidance_scale: float | None = None
    dry_run: bool = False
    batch_size: int | None = None

    def generation(self, recipe: str, kind: type[Options] = GenerationOptions, **more: Any) -> Options:
        guidance = {"steps": self.steps, "guidance_scale": self.guidance_scale}
        sampling = {**guidance, **more.pop("sampling", {})}
        shared = {name: value for name, value in vars(self).items() if name not in guidance}
        return kind(recipe=recipe, sampling=sampling, **(shared | more))

    def latent_options(self, recipe: str) -> LatentOptions:
        """Return these as the options of the commands on latents."""
        return self.generation(recipe, LatentOptions)


def trained_size(name: str) -> int:
    """Return the side of the images that a decoder of a system was trained on, which its CLIP has seen as well."""
    path = checkpoint.resolve(str(name))
    size = recipe.section(checkpoint.metadata(path)["recipe"], "task").get("size")
    return checkpoint.trained_image_size(path, size if isinstance(size, int) else 64)


def trained_positions(name: str) -> bool:
    """Return whether objects had random positions in the scenes that a decoder was trained on."""
    data = recipe.section(checkpoint.metadata(checkpoint.resolve(str(name)))["recipe"], "data")
    return bool(data.get("random_positions", True))


def request_line(**fields: Any) -> str:
    """Return a request as a line of JSON."""
    return json.dumps(fields)


def complete(results: Collected, code: int) -> list[str]:
    """Return the paths of what a command generated.

    Raises Failure if an image failed: the figures of the others would be misleading.
    """
    failed = next((result["error"] for result in results.reported if "error" in result), None)
    if code != DONE or failed:
        raise Failure(f"some images could not be generated: {failed}")
    return [result["path"] for result in results.reported]


def open_square(path: str) -> Image.Image:
    """Open an image file, cropped to a square. Raises BadImage."""
    image = images.open_image(path)
    return images.center_crop(image, min(image.size))


def opened(paths: Iterable[str]) -> Iterator[Image.Image]:
    """Open image files one at a time."""
    return map(open_square, paths)


def yes_no(correct: bool, text: str = "") -> str:
    """Return the checker's result as a sheet shows it."""
    return ("yes" if correct else "no") + (f": {text}" if text else "")


def accuracy(checker: SceneChecker, results: Iterable[Mapping[str, Any]]) -> Proportion:
    """Count how many of the generated images show what the category of their prompt is about.

    Images that failed and prompts outside the grammar of the scenes are left out.
    """
    items, shown = [], []
    for result in results:
        item = item_of(result.get("prompt") or "", checker.object_set)
        if item.scene is not None and "error" not in result:
            items.append(item)
            shown.append(open_square(result["path"]))
    figures = check_images(checker, items, shown).accuracy().values()
    return Proportion(sum(one.successes for one in figures), sum(one.trials for one in figures))


@dataclass(frozen=True)
class GroupFigures:
    """Accuracy of the images whose prompts are in the grammar of the scenes, and the mean score of a group."""

    accuracy: Proportion
    score: Mean | None

    def to_json(self) -> dict[str, Any]:
        """Return the figures that could be measured."""
        figures: dict[str, Any] = {"num_checked": self.accuracy.trials}
        if self.accuracy.trials:
            figures |= {"accuracy": self.accuracy.value, "accuracy_interval": self.accuracy.interval}
        if self.score:
            figures |= {"score": self.score.value, "score_interval": self.score.interval}
        return figures


def group_figures(results: Sequence[Mapping[str, Any]], key: str, object_set: ObjectSet) -> dict[str, GroupFigures]:
    """Return the figures of results grouped by a field."""
    checker, figures = SceneChecker(object_set), {}
    for value in dict.fromkeys(result[key] for result in results if key in result):
        group = [result for result in results if result.get(key) == value]
        scores = [result["score"] for result in group if isinstance(result.get("score"), float)]
        figures[value] = GroupFigures(accuracy(checker, group), mean(scores) if scores else None)
    return figures


def table(key: str, groups: Mapping[str, GroupFigures]) -> list[str]:
    """Return lines of text: a row for each group."""
    lines = [f"{key:<16} {'checked':>8}  {'accuracy (95 % interval)':<26} {'score':<16}"]
    for name, one in groups.items():
        shown = str(one.accuracy) if one.accuracy.trials else "outside the grammar"
        lines.append(f"{name:<16} {one.accuracy.trials:>8}  {shown:<26} {one.score or ''!s:<16}")
    return [line.rstrip() for line in lines]


def single_objects(count: int, decoder: str, objects: str) -> list[SceneSample]:
    """Return distinct unseen scenes of single objects, in the size and positions that a decoder was trained on."""
    weights, random_positions = {"single": 1.0}, trained_positions(decoder)
    return list(unseen(count, trained_size(decoder), objects, True, weights, random_positions))


def describe_run(system: ResolvedSystem, count: int) -> None:
    """Print what a dry run says."""
    print_dry_run(system, f"{count} unseen scenes")
