"""How often a system generates what held-out captions of scenes say."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from PIL import Image

from ...data.scenes.objects import ObjectSet, load_object_set
from ...exits import BAD_INPUT, WOULD_OVERWRITE, Failure
from ...generate.outputs import Collected
from ...generate.requests import read_requests
from ...generate.sample import SampleOptions, sample
from ...generate.sheets import check_sheet
from ...systems.loading import resolve
from .. import plot, suite
from ..checker import SceneChecker
from ..generated import open_square, opened
from ..protocol import Option, Progress, Result, silent, tracked

EXAMPLES = (
    "dalle evaluate scenes --recipe dalle1 --rerank 1,32 --out out/scenes",
    "dalle evaluate scenes --recipe glide --guidance-scale 1,2,3",
    "dalle evaluate scenes folder-of-captioned-images",
)
LABEL = "guidance scale"


@dataclass(frozen=True)
class Run:
    """The report on images of one origin: a folder, or a system with a number of candidates and a guidance scale."""

    report: suite.SceneReport
    path: str
    rerank: int | None = None
    guidance_scale: float | None = None

    @property
    def title(self) -> str:
        if self.rerank is None:
            return self.path
        scale = "" if self.guidance_scale is None else f", {LABEL} {self.guidance_scale:g}"
        return f"best of {self.rerank} candidates{scale}"


@dataclass(frozen=True)
class Curves:
    """Accuracy by category against the guidance scale. path: the plot, a PNG."""

    rerank: int
    scales: list[float]
    accuracy: dict[str, list[float]]
    path: str


@dataclass(frozen=True)
class SceneAccuracy(Result):
    """Reports in order, and the curves of several guidance scales."""

    runs: tuple[Run, ...]
    curves: tuple[Curves, ...] = ()

    def to_json(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = [
            {"path": run.path, "rerank": run.rerank, "guidance_scale": run.guidance_scale, **run.report.to_json()}
            for run in self.runs
        ]
        return lines + [
            {"path": one.path, "rerank": one.rerank, "guidance_scales": one.scales, "accuracy": one.accuracy}
            for one in self.curves
        ]

    def table(self) -> list[str]:
        lines: list[str] = []
        for run in self.runs:
            lines += ["", run.title, *str(run.report).splitlines()]
        for one in self.curves:
            lines += ["", f"accuracy against {LABEL}, best of {one.rerank} candidates; plotted in {one.path}"]
            lines += plot.table(LABEL, one.scales, one.accuracy)
        return lines


def scenes(
    recipe: str = "dalle1",
    images: Annotated[
        list[str] | None,
        Option(
            "Folders of captioned images to check instead, or - for JSON lines.",
            metavar="[FOLDER]...",
            positional=True,
        ),
    ] = None,
    num_captions: Annotated[int, Option("Captions, equally many of each category.", 1, 1_000_000, ("-n",))] = 200,
    objects: str = "everyday",
    rerank: Annotated[
        Sequence[int] | None,
        Option(
            "Candidates per caption, of which CLIP keeps the best. Default: 1,32 for a DALL-E 1 with a CLIP, else 1.",
            1,
            1_000_000,
            panel="Sampling",
        ),
    ] = None,
    guidance_scale: Annotated[
        Sequence[float] | None,
        Option("One scale, or several to plot the accuracy against. Default: the recipe's.", 0, 999, panel="Sampling"),
    ] = None,
    temperature: Annotated[float | None, Option("Sampling temperature; 0 is greedy.", 0, 99, panel="DALL-E 1")] = None,
    top_p: Annotated[float | None, Option("Nucleus sampling: probability to keep.", 0, 1, panel="DALL-E 1")] = None,
    steps: str | None = None,
    sampler: str | None = None,
    guidance: Annotated[str | None, Option("cfg, clip or classifier.", panel="GLIDE and unCLIP")] = None,
    seed: int | None = None,
    out: str = "out/scenes",
    overwrite: bool = False,
    quiet: bool = False,
    batch_size: int | None = None,
    precision: str = "auto",
    progress: Progress = silent,
) -> SceneAccuracy:
    """Generate images of held-out captions and check with a program what they show; or check given images.

    Raises RecipeError, CheckpointError, Failure, DataError, BadSample, BadImage.
    """  # fmt: skip
    object_set = load_object_set(objects)
    checker = SceneChecker(object_set)
    if images:
        return SceneAccuracy(tuple(_check_folder(checker, name, progress) for name in images))
    several = guidance_scale is not None and len(guidance_scale) > 1
    rerank = rerank or ([1, 32] if not several and _reranks(recipe) else [1])
    scales: list[float | None] = [*guidance_scale] if guidance_scale else [None]
    folders = {
        (scale, count): f"{out}/guidance-scale-{scale:g}/rerank-{count}" if several else f"{out}/rerank-{count}"
        for scale in scales
        for count in rerank
    }
    plots = {count: f"{out}/guidance-scales-rerank-{count}.png" for count in rerank} if several else {}
    _check_files([*folders.values()], [*plots.values()], overwrite)
    items = suite.suite(object_set, num_captions)
    options = {
        "temperature": temperature, "top_p": top_p, "steps": steps, "sampler": sampler, "guidance": guidance,
    }  # fmt: skip
    runs = []
    for (scale, count), folder in folders.items():
        how = SampleOptions(
            recipe=recipe, rerank=count if count > 1 else None, seed=seed or 0, out=folder, sheet=f"{folder}.png",
            sampling=options | {"guidance_scale": scale}, overwrite=overwrite, batch_size=batch_size,
            precision=precision, quiet=quiet,
        )  # fmt: skip
        results = Collected()
        sample([item.caption for item in items], how, results=results)
        generated = opened(result["path"] for result in results.reported)
        report = suite.check_images(checker, items, tracked(generated, "checking", len(items), progress))
        runs.append(Run(report, folder, count, scale))
    return SceneAccuracy(tuple(runs), tuple(_curves(runs, count, path) for count, path in plots.items()))


def _reranks(recipe: str) -> bool:
    """Return whether a system generates by a transformer and names a CLIP to rerank with."""
    system = resolve(recipe)
    return system.cls.needs_reranking and bool(system.reranker)


def _check_files(folders: list[str], plots: list[str], overwrite: bool) -> None:
    """Raise Failure where something is in the way of the images, their sheets or the plots."""
    for path in plots:
        check_sheet(path, overwrite)
    for folder in folders:
        check_sheet(f"{folder}.png", overwrite)
        if not overwrite and glob.glob(f"{glob.escape(folder)}/*.png"):
            raise Failure(f"{folder} already holds images: give --overwrite or another --out", WOULD_OVERWRITE)


def _curves(runs: list[Run], count: int, path: str) -> Curves:
    """Plot the runs with a number of candidates."""
    shown = [run for run in runs if run.rerank == count]
    scales = [run.guidance_scale or 0.0 for run in shown]
    accuracy = plot.accuracy_curves([run.report for run in shown])
    plot.draw(LABEL, scales, accuracy, path)
    return Curves(count, scales, accuracy, path)


def _check_folder(checker: SceneChecker, name: str, progress: Progress) -> Run:
    pairs = list(_from_lines(checker.object_set) if name == "-" else suite.from_folder(name, checker.object_set))
    images = tracked((image for _, image in pairs), name, len(pairs), progress)
    return Run(suite.check_images(checker, [item for item, _ in pairs], images), name)


def _from_lines(object_set: ObjectSet) -> Iterator[tuple[suite.SuiteItem, Image.Image]]:
    """Yield items and images of JSON lines on standard input."""
    for request in read_requests(["-"], plain_field="path", file_fields=("path",)):
        if request.failed:  # figures of some would be taken for those of all
            raise Failure(f"{request.fields['error']}; fix or remove this line", BAD_INPUT)
        yield suite.item_of(request.prompt or "", object_set), open_square(request.fields["path"])
