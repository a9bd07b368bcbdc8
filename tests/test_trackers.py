import io
import json
import os

import pytest

from dalle_cli import trackers
from dalle_cli.trackers import Log, Progress, clock


def lines(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def test_a_log_is_json_lines_and_goes_on_where_it_was(tmp_path):
    path = tmp_path / "run" / "log.jsonl"
    for step in range(3):
        log = Log(path)
        log.write(step=step, text='a "word"\n', loss=0.5)
        log.close()
    assert [line["step"] for line in lines(path)] == [0, 1, 2]
    assert lines(path)[0] == {"step": 0, "text": 'a "word"\n', "loss": 0.5}


@pytest.mark.parametrize("torn", ['{"step": 1, "lo', "\x00\x00\x00"])
def test_a_line_that_a_crash_left_unfinished_is_cut_off(tmp_path, torn):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0}\n' + torn)
    log = Log(path)
    log.write(step=2)
    log.close()
    assert lines(path) == [{"step": 0}, {"step": 2}]


def test_every_line_is_json_whatever_the_values(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.write(loss=float("nan"), norm=float("inf"), keys=["\udcff.png", "é"], event=None)
    log.close()
    assert lines(tmp_path / "log.jsonl") == [{"loss": None, "norm": None, "keys": ["\udcff.png", "é"], "event": None}]


def test_a_line_is_on_disk_when_it_is_written(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.write(step=1)
    assert lines(tmp_path / "log.jsonl") == [{"step": 1}]
    log.close()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    """A clock that the test moves."""
    time = [100.0]
    monkeypatch.setattr(trackers.time, "monotonic", lambda: time[0])
    return time


def test_progress_without_a_terminal_is_a_line_every_ten_seconds(monkeypatch, now):
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


def test_progress_on_a_terminal_is_one_line_that_a_note_leaves_whole(monkeypatch, now):
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


def test_quiet_progress_says_nothing(monkeypatch, now):
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
def test_clock(seconds, text):
    assert clock(seconds) == text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device here")
def test_a_full_disk_is_said_with_the_file(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log._file = open("/dev/full", "w")  # noqa: SIM115
    with pytest.raises(OSError, match="No space left") as full:
        log.write(step=1)
    assert full.value.filename == str(tmp_path / "log.jsonl")
