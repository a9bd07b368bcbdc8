import json

import pytest

from dalle_cli.console import Progress
from dalle_cli.data.source import DataError
from dalle_cli.training.bad_samples import MAX_REPORTED, Bad


def test_all_bad_samples_are_listed_and_the_first_are_said(tmp_path, capsys):
    bad, progress = Bad(0.5, tmp_path), Progress("train", 10)
    for number in range(MAX_REPORTED + 5):
        bad.note([(f"{number}.png", "not an image: cut short")], 8, progress)
    lines = [json.loads(line) for line in (tmp_path / "bad_samples.jsonl").read_text().splitlines()]
    assert lines[3] == {"key": "3.png", "reason": "not an image: cut short"}
    assert len(lines) == MAX_REPORTED + 5
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"bad sample 0.png: not an image: cut short; skipped (listed in {tmp_path}/bad_samples.jsonl)"
    assert len(said) == MAX_REPORTED


def test_too_many_stop_the_run_and_none_leave_no_file(tmp_path):
    bad, progress = Bad(0.05, tmp_path), Progress("train", 10, quiet=True)
    bad.note([], 100, progress)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"above data\.max_bad_fraction=0\.05"):
        bad.note([(f"{number}.png", "no caption") for number in range(10)], 10, progress)
