"""Plot fractions against a parameter such as the guidance scale, as a table and as an image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..images import save_png
from .suite import SceneReport

COLORS = ((222, 45, 38), (50, 110, 220), (60, 170, 75), (245, 140, 30), (140, 70, 190), (130, 85, 50), (40, 40, 44))
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 400, 56, 150, 20, 48  # pixels: the page, and the margins


def accuracy_curves(reports: Sequence[SceneReport]) -> dict[str, list[float]]:
    """Return by category the accuracy of each report."""
    accuracies = [report.accuracy() for report in reports]
    return {name: [one[name].value for one in accuracies] for name in accuracies[0]}


def table(label: str, x: Sequence[float], curves: Mapping[str, Sequence[float]]) -> list[str]:
    """Return lines of text: a row for each curve, a column for each value of x. label: what x is."""
    wide = max(12, len(label))
    head = f"{label:<{wide}} " + " ".join(f"{value:>7g}" for value in x)
    return [head, *(f"{name:<{wide}} " + " ".join(f"{y:>7.1%}" for y in curve) for name, curve in curves.items())]


def draw(label: str, x: Sequence[float], curves: Mapping[str, Sequence[float]], path: str | Path) -> None:
    """Write the curves as a PNG, from 0 to 100 % vertically. label: what x is."""
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    low, span = min(x), max(max(x) - min(x), 1e-9)

    def position(value: float, y: float) -> tuple[float, float]:
        horizontal = LEFT + (value - low) / span * (WIDTH - LEFT - RIGHT)
        return horizontal, TOP + (1 - y) * (HEIGHT - TOP - BOTTOM)

    for percent in range(0, 101, 20):
        (left, top), end = position(low, percent / 100), position(max(x), percent / 100)
        pen.line(((left, top), end), fill=(225, 225, 225))
        pen.text((left - 8, top), f"{percent} %", fill="black", font=font, anchor="rm")
    for value in x:
        left, top = position(value, 0)
        pen.text((left, top + 8), f"{value:g}", fill="black", font=font, anchor="mt")
    pen.text((LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 6), label, fill="black", font=font, anchor="mb")
    for number, (name, curve) in enumerate(curves.items()):
        color = COLORS[number % len(COLORS)]
        points = [position(value, y) for value, y in sorted(zip(x, curve))]
        pen.line(points, fill=color, width=2)
        for left, top in points:
            pen.ellipse((left - 3, top - 3, left + 3, top + 3), fill=color)
        pen.text((WIDTH - RIGHT + 16, TOP + 20 * number), name, fill=color, font=font)
    save_png(page, path)
