import json
import os

import pytest

from dalle_cli.training.trackers import Log


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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device here")
def test_a_full_disk_is_said_with_the_file(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log._file = open("/dev/full", "w")  # noqa: SIM115
    with pytest.raises(OSError, match="No space left") as full:
        log.write(step=1)
    assert full.value.filename == str(tmp_path / "log.jsonl")
