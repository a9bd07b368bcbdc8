"""Accuracy against the scale of guidance, as a table and as a drawing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..images import save_png
from .suite import Report

COLOURS = ((222, 45, 38), (50, 110, 220), (60, 170, 75), (245, 140, 30), (140, 70, 190), (130, 85, 50), (40, 40, 44))
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 400, 56, 150, 20, 48  # pixels: the page, and the room around the curves


def figures(reports: Sequence[Report]) -> dict[str, list[float]]:
    """By category, the share of pictures as asked in each report."""
    shares = [report.figures() for report in reports]
    return {name: [one[name].true / max(one[name].count, 1) for one in shares] for name in shares[0]}


def table(scales: Sequence[float], found: Mapping[str, Sequence[float]]) -> list[str]:
    """Lines of text: a row for each category, a column for each scale."""
    head = f"{'scale':<12} " + " ".join(f"{scale:>7g}" for scale in scales)
    return [head, *(f"{name:<12} " + " ".join(f"{share:>7.1%}" for share in row) for name, row in found.items())]


def draw(scales: Sequence[float], found: Mapping[str, Sequence[float]], path: str | Path) -> None:
    """Write the curves as a PNG, from 0 to 100 % upwards, scales in proportion to the right."""
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    low, span = min(scales), max(max(scales) - min(scales), 1e-9)

    def place(scale: float, share: float) -> tuple[float, float]:
        across = LEFT + (scale - low) / span * (WIDTH - LEFT - RIGHT)
        return across, TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)

    for percent in range(0, 101, 20):
        (x, y), end = place(low, percent / 100), place(max(scales), percent / 100)
        pen.line(((x, y), end), fill=(225, 225, 225))
        pen.text((x - 8, y), f"{percent} %", fill="black", font=font, anchor="rm")
    for scale in scales:
        x, y = place(scale, 0)
        pen.text((x, y + 8), f"{scale:g}", fill="black", font=font, anchor="mt")
    pen.text((LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 6), "scale of guidance", fill="black", font=font, anchor="mb")
    for number, (name, row) in enumerate(found.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [place(scale, share) for scale, share in sorted(zip(scales, row))]
        pen.line(points, fill=colour, width=2)
        for x, y in points:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        pen.text((WIDTH - RIGHT + 16, TOP + 20 * number), name, fill=colour, font=font)
    save_png(page, path)
