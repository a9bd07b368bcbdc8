"""The learning curve of a run as an image: training and validation loss over the steps, from RUN/log.jsonl."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

Point = tuple[int, float]

WIDTH, HEIGHT = 720, 400  # pixels
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 40  # margins, pixels
COLORS = {"training": (60, 110, 200), "validation": (220, 90, 40)}
AXIS, TEXT = (150, 150, 150), (60, 60, 60)


def read_log(path: Path, until: int | None = None) -> list[dict[str, Any]]:
    """Return the records of a run's log that hold a loss, one for each step and kind: the last that was written.

    until: leave out later steps, which a run that resumed from an older state does again.
    """
    records: dict[tuple[int, bool], dict[str, Any]] = {}
    if not path.exists():
        return []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # cut short by a crash
            continue
        if isinstance(record, dict) and isinstance(record.get("loss"), int | float):
            step = int(record.get("step", 0))
            if until is None or step <= until:
                records[step, record.get("event") == "validation"] = record
    return [records[key] for key in sorted(records)]


def losses(records: Sequence[dict[str, Any]]) -> dict[str, list[Point]]:
    """Return (step, loss) of training and of validation."""
    points: dict[str, list[Point]] = {"training": [], "validation": []}
    for record in records:
        kind = "validation" if record.get("event") == "validation" else "training"
        if math.isfinite(record["loss"]):
            points[kind].append((int(record["step"]), float(record["loss"])))
    return points


def draw(records: Sequence[dict[str, Any]], title: str) -> Image.Image | None:
    """Return the curves of a run, the best validation marked; None where there is nothing to draw."""
    curves = losses(records)
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return None
    last = max(1, *(step for step, _ in points))
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    span = (high - low) or max(abs(high), 1e-9)
    low, high = low - 0.05 * span, high + 0.05 * span

    def pixel(point: Point) -> tuple[float, float]:
        step, loss = point
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / last
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low)

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(12)
    pen.line([(LEFT, TOP), (LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM)], fill=AXIS)
    for fraction in (0, 0.25, 0.5, 0.75, 1):
        loss, step = low + fraction * (high - low), round(fraction * last)
        pen.text((LEFT - 6, pixel((0, loss))[1]), f"{loss:.3g}", fill=TEXT, font=font, anchor="rm")
        pen.text((pixel((step, low))[0], HEIGHT - BOTTOM + 6), f"{step}", fill=TEXT, font=font, anchor="mt")
    pen.text((LEFT, 12), title, fill=TEXT, font=font)
    for number, (kind, curve) in enumerate(curves.items()):
        if len(curve) > 1:
            pen.line([pixel(point) for point in curve], fill=COLORS[kind], width=2)
        for x, y in map(pixel, curve if kind == "validation" or len(curve) == 1 else []):
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=COLORS[kind])
        if curve:
            pen.text((WIDTH - RIGHT, 12 + 14 * number), f"{kind} loss", fill=COLORS[kind], font=font, anchor="ra")
    if len(curves["validation"]) > 1:
        step, loss = best = min(curves["validation"], key=lambda point: point[1])
        x, y = pixel(best)
        pen.ellipse((x - 5, y - 5, x + 5, y + 5), outline=COLORS["validation"])
        pen.text((x, y + 8), f"best {loss:.4g}, step {step}", fill=TEXT, font=font, anchor="mt")
    return image
