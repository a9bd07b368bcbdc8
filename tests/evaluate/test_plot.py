import numpy as np
from PIL import Image

from dalle_cli.evaluate import plot
from dalle_cli.evaluate.checker import Claim, SceneResult
from dalle_cli.evaluate.suite import SceneReport, SuiteItem

YES, NO = (SceneResult((Claim("object", "circle", correct),)) for correct in (True, False))
ITEMS = (
    SuiteItem("single", None, "a circle"),
    SuiteItem("single", None, "a star"),
    SuiteItem("pair", None, "a circle and a star"),
)
REPORTS = [SceneReport(ITEMS, (NO, NO, YES)), SceneReport(ITEMS, (YES, NO, YES)), SceneReport(ITEMS, (YES, YES, NO))]


def test_curves_are_the_accuracies_of_the_reports():
    curves = plot.accuracy_curves(REPORTS)
    assert curves == {"single": [0.0, 0.5, 1.0], "pair": [1.0, 1.0, 0.0]}
    lines = plot.table("scale", [1, 2.5, 4], curves)
    assert [line.split() for line in lines] == [
        ["scale", "1", "2.5", "4"],
        ["single", "0.0%", "50.0%", "100.0%"],
        ["pair", "100.0%", "100.0%", "0.0%"],
    ]


def test_curves_pass_through_their_points(tmp_path):
    plot.draw(
        "scale", [4, 1, 2.5], {"single": [1.0, 0.0, 0.5], "pair": [0.0, 1.0, 1.0]}, tmp_path / "new" / "curve.png"
    )
    page = np.asarray(Image.open(tmp_path / "new" / "curve.png")).astype(int)
    rows, columns = np.nonzero(np.abs(page[:, :490] - plot.COLORS[0]).sum(axis=2) < 10)  # left of the names
    slope = np.polyfit(columns, rows, 1)[0]
    height, width = plot.HEIGHT - plot.TOP - plot.BOTTOM, plot.WIDTH - plot.LEFT - plot.RIGHT
    assert abs(slope + height / width) < 0.02
    assert abs(rows.min() - plot.TOP) < 5
    assert abs(columns.min() - plot.LEFT) < 5


def test_single_value_is_a_point(tmp_path):
    plot.draw("scale", [3.0], {"single": [0.25]}, tmp_path / "curve.png")
    assert Image.open(tmp_path / "curve.png").size == (plot.WIDTH, plot.HEIGHT)
