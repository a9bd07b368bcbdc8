"""What variations of single objects preserve (Ramesh et al. 2022, section 3.1)."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from ...data.scenes.objects import load_object_set
from ...generate.latent_editor import LatentEditor
from ...generate.outputs import Collected
from ...generate.vary import vary as generate
from .. import statistics, suite
from ..checker import SceneChecker
from ..generated import Generation, complete, describe_run, opened, single_objects, yes_no
from ..protocol import Option, Progress, Result, Rows, silent, tracked
from ..recovered import PSNRs, psnrs

EXAMPLES = ("dalle evaluate vary -n 50 --sheet variations.png",)
DEFAULTS = Generation(out="out/vary")


@dataclass(frozen=True)
class Variation(Result):
    """PSNR of the images at eta 0; claims: how often what a caption says is still correct at eta 1."""

    recipe: str
    num_images: int
    reconstruction: PSNRs
    claims: dict[str, statistics.Proportion]
    rows: Rows
    sheet = True

    def to_json(self) -> list[dict[str, Any]]:
        kept = statistics.to_json({"object_kept": self.claims["object"]})
        return [{"recipe": self.recipe, "num_images": self.num_images, **self.reconstruction.to_json(), **kept}]

    def table(self) -> list[str]:
        others = [name for name in self.claims if name not in ("object", "count", "rest")]
        return [
            f"{self.num_images} unseen scenes of single objects", f"eta 0: {self.reconstruction}",
            f"eta 1: object kept: {self.claims['object']}", *(f"       {name}: {self.claims[name]}" for name in others),
        ]  # fmt: skip


def vary(
    recipe: Annotated[str, Option("System recipe of type unclip.", metavar="NAME|PATH", panel="Model")] = "unclip",
    num_images: Annotated[int, Option("Unseen scenes of single objects.", 1, 1_000_000, ("-n",))] = 50,
    objects: str = "everyday",
    options: Generation = DEFAULTS,
    progress: Progress = silent,
) -> Variation | None:
    """Measure what variations preserve: PSNR at eta 0, and how often the object is kept at eta 1.

    A guidance scale applies at eta 1 only, because with guidance DDIM inversion does not return to the image. Returns
    None for a dry run. Raises RecipeError, CheckpointError, Failure.
    """
    editor = LatentEditor("vary", options.latent_options(recipe))
    if options.dry_run:
        return describe_run(editor.resolved, num_images)
    checker = SceneChecker(load_object_set(objects))
    scenes = single_objects(num_images, editor.resolved.parts["decoder"], objects)
    inputs = options.write_inputs(recipe, [(sample.caption, sample.image) for sample in scenes])
    results, paths = (Collected(), Collected()), []
    for eta, collected in enumerate(results):
        unguided = options if eta else replace(options, guidance_scale=None)
        latent_options = unguided.to(f"eta-{eta}").latent_options(recipe)
        paths.append(complete(collected, generate(inputs, [float(eta)], 1, latent_options, collected)))
    ratios = [result["psnr"] for result in results[0].reported]
    items = [suite.SuiteItem(suite.category_of(sample.scene), sample.scene, sample.caption) for sample in scenes]
    report = suite.check_images(checker, items, tracked(opened(paths[1]), "checking", num_images, progress))
    rows = [
        [(before, "input"), (same, f"eta 0, {ratio:.1f} dB"), (new, f"eta 1, object: {yes_no(one.correct('object'))}")]
        for before, same, ratio, new, one in zip(inputs, paths[0], ratios, paths[1], report.results)
    ]
    return Variation(recipe, num_images, psnrs(ratios), report.claims(), rows)
