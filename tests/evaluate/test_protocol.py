import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dalle_cli import evaluate
from dalle_cli.evaluate import protocol

PACKAGE = Path(evaluate.__file__).parents[1]
METRIC = '''
"""How bright images are."""

from dataclasses import dataclass
from typing import Annotated

from .. import samples
from ..protocol import Option, Result

EXAMPLES = ("dalle evaluate mean_brightness -n 3",)


@dataclass(frozen=True)
class Brightness(Result):
    mean: float

    def to_json(self):
        return [{"mean": self.mean}]

    def table(self):
        return [f"brightness {self.mean:.3f}"]


def mean_brightness(
    num_images: Annotated[int, Option("Unseen scenes.", 1, 100, ("-n",))] = 10, objects: str = "shapes"
) -> Brightness:
    """Measure the mean brightness of unseen scenes.

    This paragraph is for readers of the code.
    """
    images = [sample.image for sample in samples.unseen(num_images, 16, objects)]
    return Brightness(float(sum(image.mean() / 255 for image in images) / len(images)))
'''


def test_protocols_are_attributes_of_the_package():
    assert evaluate.retrieval is protocol.load(protocol.PROTOCOLS, "retrieval")
    assert evaluate.probe_binding is protocol.load(protocol.PROBES, "binding")
    assert {"dvae", "scenes", "probe_pca", "probe_prior"} <= set(dir(evaluate))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        evaluate.nothing  # noqa: B018


def test_no_protocol_has_the_name_of_a_module():
    modules = {path.stem for path in (PACKAGE / "evaluate").iterdir()}
    assert not modules & set(protocol.names(protocol.PROTOCOLS))


def test_tracked_reports_what_has_been_used():
    stages = []
    assert list(protocol.tracked("ab", "reading", 2, lambda *stage: stages.append(stage))) == ["a", "b"]
    assert stages == [("reading", 1, 2), ("reading", 2, 2)]


def test_package_is_imported_without_torch():
    code = "import sys; from dalle_cli import evaluate; dir(evaluate); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_one_file_adds_a_metric(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "dalle_cli", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    (tmp_path / "dalle_cli" / "evaluate" / "protocols" / "mean_brightness.py").write_text(METRIC)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(*words):
        command = [sys.executable, "-m", "dalle_cli", "evaluate", *words]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

    assert "Measure the mean brightness of unseen scenes." in run("--help").stdout
    page = run("mean-brightness", "--help").stdout
    assert "--num-images" in page
    assert "dalle evaluate mean_brightness -n 3" in page
    assert "readers of the code" not in page
    ended = run("mean-brightness", "-n", "3")
    assert ended.stdout.startswith('{"title": "evaluate mean-brightness", "mean": 0.'), ended.stderr
    assert run("mean-brightness", "-n", "0").returncode == 2
