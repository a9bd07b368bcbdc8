"""How often the scene checker itself is right."""

from dataclasses import dataclass
from typing import Annotated, Any

from ...data.scenes.objects import load_object_set
from .. import samples, suite
from ..checker import SceneChecker
from ..protocol import Option, Progress, Result, silent, tracked

EXAMPLES = ("dalle evaluate scene-checker -n 1000",)


@dataclass(frozen=True)
class CheckerAccuracy(Result):
    """Rendered scenes checked against their own captions, all of which are correct, and against shuffled ones."""

    own: suite.SceneReport
    shuffled: suite.SceneReport

    def to_json(self) -> list[dict[str, Any]]:
        reports = {"own": self.own, "shuffled": self.shuffled}
        return [{"captions": name, **report.to_json()} for name, report in reports.items()]

    def table(self) -> list[str]:
        return ["own captions", *str(self.own).splitlines(), "", "shuffled captions", *str(self.shuffled).splitlines()]


def scene_checker(
    num_scenes: Annotated[int, Option("Scenes to render and check.", 1, 1_000_000, ("-n",))] = 1000,
    objects: str = "everyday",
    size: Annotated[int, Option("Side of the scenes in pixels.", 32, 512)] = 64,
    progress: Progress = silent,
) -> CheckerAccuracy:
    """Check the scene checker: rendered scenes against their own captions, and against each other's."""
    checker = SceneChecker(load_object_set(objects))
    scenes = list(samples.unseen(num_scenes, size, objects))
    items = [suite.SuiteItem(suite.category_of(sample.scene), sample.scene, sample.caption) for sample in scenes]

    def report(name: str, items: list[suite.SuiteItem]) -> suite.SceneReport:
        images = tracked((sample.image for sample in scenes), name, num_scenes, progress)
        return suite.check_images(checker, items, images)

    return CheckerAccuracy(report("own captions", items), report("shuffled captions", suite.shuffled(items)))
