"""Whether interpolations begin and end at their images (Ramesh et al. 2022, section 3.2)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from ...data.scenes.objects import load_object_set
from ...generate.interpolate import interpolate as generate
from ...generate.latent_editor import LatentEditor
from ...generate.outputs import Collected
from .. import statistics
from ..checker import SceneChecker
from ..generated import Generation, complete, describe_run, opened, single_objects, yes_no
from ..protocol import Option, Progress, Result, Rows, silent, tracked
from ..statistics import Proportion, proportion

EXAMPLES = ("dalle evaluate interpolate -n 50 --noise fixed",)
DEFAULTS = Generation(out="out/interpolate")


@dataclass(frozen=True)
class Interpolation(Result):
    """endpoints: how many images at the end of a path show its object; paths: how many paths do at both ends."""

    recipe: str
    noise: str
    num_paths: int
    endpoints: Proportion
    paths: Proportion
    rows: Rows
    sheet = True

    def to_json(self) -> list[dict[str, Any]]:
        figures = statistics.to_json({"endpoints": self.endpoints, "paths": self.paths})
        return [{"recipe": self.recipe, "noise": self.noise, "num_paths": self.num_paths, **figures}]

    def table(self) -> list[str]:
        return [
            f"{self.num_paths} paths through {self.num_paths + 1} unseen scenes of single objects, noise {self.noise}",
            f"endpoints that show their object: {self.endpoints}",
            f"paths that do at both ends: {self.paths}",
        ]


def interpolate(
    recipe: Annotated[str, Option("System recipe of type unclip.", metavar="NAME|PATH", panel="Model")] = "unclip",
    num_paths: Annotated[int, Option("Paths, each from one scene to the next.", 1, 100_000, ("-n",))] = 50,
    objects: str = "everyday",
    noise: Annotated[
        Literal["slerp", "fixed"],
        Option("slerp: between the noises of the two images; fixed: one random noise.", panel="Sampling"),
    ] = "slerp",
    options: Generation = DEFAULTS,
    progress: Progress = silent,
) -> Interpolation | None:
    """Interpolate between unseen scenes of single objects: how often the endpoints show their objects.

    Returns None for a dry run. Raises RecipeError, CheckpointError, Failure.
    """
    editor = LatentEditor("interpolate", options.latent_options(recipe), noise == "slerp")
    if options.dry_run:
        return describe_run(editor.resolved, num_paths)
    checker = SceneChecker(load_object_set(objects))
    scenes = single_objects(num_paths + 1, editor.resolved.parts["decoder"], objects)
    inputs = options.write_inputs(recipe, [(sample.caption, sample.image) for sample in scenes])
    results, latent_options = Collected(), options.to("generated").latent_options(recipe)
    paths = complete(results, generate(inputs, 2, noise, 1, None, latent_options, results))
    images = tracked(opened(paths), "checking", num_paths + 1, progress)
    shown = [checker.check(image, sample.scene).correct("object") for image, sample in zip(images, scenes)]
    rows = [
        [(path, sample.caption), (result["path"], yes_no(correct))]
        for path, sample, result, correct in zip(inputs, scenes, results.reported, shown)
    ]
    both = proportion(a and b for a, b in pairwise(shown))
    return Interpolation(recipe, noise, num_paths, proportion(shown), both, rows)
