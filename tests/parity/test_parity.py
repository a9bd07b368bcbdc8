import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from . import run_case

FOLDER = Path(os.environ.get("DALLE_PARITY") or Path(__file__).parents[2] / "../shared/parity").resolve()


def kind(folder):
    return json.loads((folder / "case.json").read_text())["kind"]


CASES = [path.parent for path in sorted(FOLDER.glob("*/case.json")) if kind(path.parent) in run_case.KINDS]
NO_CASES = "no parity cases: name their folder in DALLE_PARITY"


@pytest.mark.skipif(not CASES, reason=NO_CASES)
@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_outputs_equal_the_published_implementation(folder):
    errors = run_case.compare(folder)
    assert errors
    for name, error in errors.items():
        assert error is not None, name
        assert error < run_case.LIMIT, name


@pytest.mark.skipif(not CASES, reason=NO_CASES)
def test_other_weights_fail(tmp_path, capsys):
    folder = shutil.copytree(CASES[0], tmp_path / "other")
    case = json.loads((folder / "case.json").read_text())
    case["weights"]["seed"] += 1
    (folder / "case.json").write_text(json.dumps(case))
    assert run_case.main([str(folder)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["case"] == "other"
    report["outputs"].pop("q_sample", None)  # weights have no part in it
    assert min(report["outputs"].values()) > 1e-2


@pytest.mark.skipif(not CASES, reason=NO_CASES)
def test_command():
    run = subprocess.run([sys.executable, run_case.__file__, CASES[0]], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["case"] == CASES[0].name


def test_other_folders_are_refused(tmp_path, capsys):
    assert run_case.main([str(tmp_path)]) == 2
    (tmp_path / "case.json").write_text('{"kind": "unheard-of"}')
    assert run_case.main([str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "no kind 'unheard-of'" in captured.err
    assert captured.out == ""
