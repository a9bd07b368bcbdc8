"""The benchmarks start; their figures are for people."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import PARTS
from benchmarks.stopwatch import line, seconds

ROOT = Path(__file__).parents[1]


def run(*words):
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)


def test_unknown_benchmark_is_refused():
    ended = run("speed")
    assert ended.returncode == 1
    assert "no benchmark called speed" in ended.stderr
    assert "sampling" in ended.stderr


def test_scenes_are_timed():
    ended = run("scenes")
    assert ended.returncode == 0, ended.stderr
    assert "images/s" in ended.stdout


def test_all_parts_are_listed():
    assert {"matmul", "sampling", "training", "memory", "gpu", "clip", "unclip"} <= set(PARTS)


def test_median_is_taken():
    calls = []
    assert seconds(lambda: calls.append(1), 3) < 1
    assert len(calls) == 4  # one to warm up


@pytest.mark.parametrize(("value", "shown"), [(0.1234, "0.123"), (1234.5, "1,234.50")])
def test_rows_show_figure_unit_and_target(capsys, value, shown):
    line("what", "how", value, "s", "1 s")
    assert capsys.readouterr().out.split() == ["what", "how", shown, "s", "target:", "1", "s"]
