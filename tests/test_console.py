import io
import json
import sys

import pytest

from dalle_cli import console
from dalle_cli.console import Progress, StageProgress, align, format_duration, print_result, print_text, printable
from dalle_cli.exits import Failure


def test_result_is_json_or_text(capsys, monkeypatch):
    print_result({"name": "ü\x1b", "number": 1}, ["ü\x1b[31m", "one"], as_json=False)
    assert json.loads(capsys.readouterr().out) == {"name": "ü\x1b", "number": 1}
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_result({"number": 1}, ["ü\x1b[31m", "one"], as_json=False)
    assert capsys.readouterr().out == "ü?[31m\none\n"
    print_result({"interval": [float("inf"), float("nan")]}, [], as_json=True)
    assert json.loads(capsys.readouterr().out) == {"interval": [None, None]}
    print_result({"number": 1}, ["text"], as_json=True)
    assert capsys.readouterr().out == '{"number": 1}\n'


def test_closed_output_is_a_failure(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(Failure, match="closed"):
        print_result({}, [], as_json=False)


def test_unencodable_text_is_replaced(capsys):
    print_text("a lone surrogate \ud800")
    assert capsys.readouterr().out == "a lone surrogate ?\n"


def test_columns_are_aligned():
    assert align([("a", 5, "last"), ("long", 12_345, 6)]) == ["a          5  last", "long  12,345  6"]
    assert align([]) == []


def test_lines_are_cut_on_request(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    rows = [("name", "x" * 50), ("b", "short")]
    assert [len(line) for line in align(rows, cut=True)] == [20, 11]
    assert align(rows, cut=True)[0].endswith("x…")
    assert len(align(rows)[0]) == 56


def test_control_characters_are_replaced():
    assert printable("ä 好 \x1b\u202e\ud800\n") == "ä 好 ????"


def test_stages_have_their_own_progress(capsys, monkeypatch):
    monkeypatch.setattr("dalle_cli.console.PLAIN_EVERY", 0.0)
    progress = StageProgress(quiet=False)
    for stage in ("captions", "merges"):
        for done in (1, 2):
            progress(stage, done, 2)
    progress.close()
    shown = capsys.readouterr().err
    assert [line.split("  ")[:2] for line in shown.splitlines()] == [
        ["captions", "1/2"],
        ["captions", "2/2"],
        ["merges", "1/2"],
        ["merges", "2/2"],
    ]
    quiet = StageProgress(quiet=True)
    quiet("captions", 1, 2)
    quiet.close()
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    """A clock that the test moves."""
    time = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: time[0])
    return time


def test_progress_in_a_file_is_a_line_every_ten_seconds(monkeypatch, now):
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    progress = Progress("run", 100)
    now[0] += 1000  # preparation
    progress.begin(10)
    progress.values = {"loss": 0.123456}
    for _ in range(40):
        now[0] += 1
        progress.advance(wait="1%")
    progress.close()
    shown = out.getvalue().splitlines()
    assert len(shown) == 4
    assert shown[0] == "run  15/100  loss 0.1235  wait 1%  1:25 left"
    assert "\r" not in out.getvalue()


def test_progress_on_a_terminal_is_one_line(monkeypatch, now):
    out = Terminal()
    monkeypatch.setattr("sys.stderr", out)
    monkeypatch.setenv("COLUMNS", "40")
    progress = Progress("run", 100)
    now[0] += 1
    progress.advance(text="x" * 100)
    progress.note("look")
    progress.close()
    live, note = out.getvalue().split("look")
    assert "\n" not in live
    assert all(len(piece) < 40 for piece in live.split("\r"))
    assert live.endswith("\r" + " " * 39 + "\r")
    assert note == "\n"


def test_quiet_progress_is_silent(monkeypatch, now):
    out = Terminal()
    monkeypatch.setattr("sys.stderr", out)
    progress = Progress("run", None, quiet=True)
    now[0] += 100
    progress.advance(5)
    progress.note("look")
    progress.close()
    assert progress.done == 5
    assert out.getvalue() == ""


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_durations(seconds, text):
    assert format_duration(seconds) == text
