import json

import numpy as np

from dalle_cli.training import curve

RECORDS = [
    {"event": "start", "step": 0},
    {"event": "validation", "step": 0, "loss": 3.0},
    {"step": 50, "loss": 2.0},
    {"event": "validation", "step": 100, "loss": 1.5},
    {"step": 100, "loss": 1.0},
]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"step": 9, "lo')
    return path


def test_records_are_read_without_other_lines(tmp_path):
    records = curve.read_log(write(tmp_path / "log.jsonl", RECORDS))
    assert curve.losses(records) == {"training": [(50, 2.0), (100, 1.0)], "validation": [(0, 3.0), (100, 1.5)]}


def test_steps_done_again_count_once_and_later_ones_not(tmp_path):
    path = write(tmp_path / "log.jsonl", [*RECORDS, {"step": 50, "loss": 2.5}, {"step": 150, "loss": 9.0}])
    assert curve.losses(curve.read_log(path, until=100))["training"] == [(50, 2.5), (100, 1.0)]


def test_curve_shows_both_losses():
    pixels = np.asarray(curve.draw(RECORDS[1:], "clip-tiny"))
    for color in curve.COLORS.values():
        assert (pixels == color).all(axis=2).sum() > 50


def test_nothing_to_draw_gives_no_image(tmp_path):
    assert curve.draw(curve.read_log(tmp_path / "none.jsonl"), "x") is None
    assert curve.draw([{"step": 3, "loss": float("nan")}], "x") is None


def test_one_point_is_drawn():
    assert curve.draw([{"step": 5, "loss": 1.0}], "x") is not None
