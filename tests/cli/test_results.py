import json
import sys

import pytest

from dalle_cli.cli.results import Watch, columns, output, printable, report
from dalle_cli.exits import Failure


def test_programs_get_a_json_line_and_people_get_text(capsys, monkeypatch):
    report({"name": "ü\x1b", "number": 1}, ["ü\x1b[31m", "one"], as_json=False)
    assert json.loads(capsys.readouterr().out) == {"name": "ü\x1b", "number": 1}
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    report({"number": 1}, ["ü\x1b[31m", "one"], as_json=False)
    assert capsys.readouterr().out == "ü?[31m\none\n"
    report({"interval": [float("inf"), float("nan")]}, [], as_json=True)
    assert json.loads(capsys.readouterr().out) == {"interval": [None, None]}
    report({"number": 1}, ["text"], as_json=True)
    assert capsys.readouterr().out == '{"number": 1}\n'


def test_closed_output_is_a_failure(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(Failure, match="closed"):
        report({}, [], as_json=False)


def test_what_the_terminal_cannot_show_does_not_end_the_program(capsys):
    output("a lone surrogate \ud800")
    assert capsys.readouterr().out == "a lone surrogate ?\n"


def test_columns_are_aligned_and_numbers_stand_to_the_right():
    assert columns([("a", 5, "last"), ("long", 12_345, 6)]) == ["a          5  last", "long  12,345  6"]
    assert columns([]) == []


def test_columns_are_cut_only_where_asked(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    rows = [("name", "x" * 50), ("b", "short")]
    assert [len(line) for line in columns(rows, cut=True)] == [20, 11]
    assert columns(rows, cut=True)[0].endswith("x…")
    assert len(columns(rows)[0]) == 56


def test_only_what_prints_is_printed():
    assert printable("ä 好 \x1b\u202e\ud800\n") == "ä 好 ????"


def test_progress_has_a_line_for_each_stage(capsys, monkeypatch):
    monkeypatch.setattr("dalle_cli.trackers.PLAIN_EVERY", 0.0)
    watch = Watch(quiet=False)
    for stage in ("captions", "merges"):
        for done in (1, 2):
            watch(stage, done, 2)
    watch.close()
    shown = capsys.readouterr().err
    assert [line.split("  ")[:2] for line in shown.splitlines()] == [
        ["captions", "1/2"],
        ["captions", "2/2"],
        ["merges", "1/2"],
        ["merges", "2/2"],
    ]
    quiet = Watch(quiet=True)
    quiet("captions", 1, 2)
    quiet.close()
    assert capsys.readouterr().err == ""
