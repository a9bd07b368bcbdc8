import numpy as np
from PIL import Image

from dalle_cli.evaluate import curve
from dalle_cli.evaluate.checker import Claim, Verdict
from dalle_cli.evaluate.suite import Item, Report

YES, NO = (Verdict((Claim("object", "circle", true),)) for true in (True, False))
ITEMS = (Item("single", None, "a circle"), Item("single", None, "a star"), Item("pair", None, "a circle and a star"))
REPORTS = [Report(ITEMS, (NO, NO, YES)), Report(ITEMS, (YES, NO, YES)), Report(ITEMS, (YES, YES, NO))]


def test_shares_are_those_of_the_reports_in_their_order():
    found = curve.figures(REPORTS)
    assert found == {"single": [0.0, 0.5, 1.0], "pair": [1.0, 1.0, 0.0]}
    lines = curve.table([1, 2.5, 4], found)
    assert [line.split() for line in lines] == [
        ["scale", "1", "2.5", "4"],
        ["single", "0.0%", "50.0%", "100.0%"],
        ["pair", "100.0%", "100.0%", "0.0%"],
    ]


def test_curves_pass_through_their_points(tmp_path):
    curve.draw([4, 1, 2.5], {"single": [1.0, 0.0, 0.5], "pair": [0.0, 1.0, 1.0]}, tmp_path / "new" / "curve.png")
    page = np.asarray(Image.open(tmp_path / "new" / "curve.png")).astype(int)
    rows, columns = np.nonzero(np.abs(page[:, :490] - curve.COLOURS[0]).sum(axis=2) < 10)  # left of the names
    slope = np.polyfit(columns, rows, 1)[0]
    height, width = curve.HEIGHT - curve.TOP - curve.BOTTOM, curve.WIDTH - curve.LEFT - curve.RIGHT
    assert abs(slope + height / width) < 0.02
    assert abs(rows.min() - curve.TOP) < 5
    assert abs(columns.min() - curve.LEFT) < 5


def test_one_scale_is_a_point(tmp_path):
    curve.draw([3.0], {"single": [0.25]}, tmp_path / "curve.png")
    assert Image.open(tmp_path / "curve.png").size == (curve.WIDTH, curve.HEIGHT)
