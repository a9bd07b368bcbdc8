"""Sheets of rows: a picture that was worked on, and what was drawn of it beside it."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from .. import images
from ..exits import Failure
from .outputs import SHEET_PIXELS
from .requests import GenerationRequest

Cell = tuple[str | Path | Image.Image, str]
"""A picture of a sheet, or its file, and what stands below it."""


def save_rows(path: str, rows: Sequence[Sequence[Cell]]) -> None:
    """Write a sheet of rows, short ones filled up with white. Raises Failure when it cannot be written.

    Small pictures are enlarged to the largest: what was given stands beside what was drawn of it.
    """
    columns = max(map(len, rows), default=0)
    if not columns:
        return
    side = max(math.isqrt(SHEET_PIXELS // (columns * len(rows))), 16)
    pictures: list[Image.Image] = []
    captions: list[str] = []
    for row in rows:
        for what, caption in [*row, *[("", "")] * (columns - len(row))]:
            picture = what.copy() if isinstance(what, Image.Image) else _opened(what)
            picture.thumbnail((side, side))
            pictures.append(picture)
            captions.append(caption)
    largest = max(max(picture.size) for picture in pictures)
    pictures = [ImageOps.contain(picture, (largest, largest)) for picture in pictures]
    try:
        images.save_png(images.sheet(pictures, captions if side >= 32 else None, columns), path)
    except OSError as error:
        raise Failure(f"--sheet {path}: cannot be written: {error.strerror or error}") from None


def original_cell(request: GenerationRequest, drawn: Iterable[dict[str, Any]]) -> Cell:
    """The first cell of a row: the square of a picture that the system saw, as large as what was drawn of it."""
    try:
        size = next((images.open_image(one["path"]).width for one in drawn if "error" not in one), 64)
        return images.square(images.open_image(request.fields["image"]), size), "original"
    except images.BadImage:
        return "", "cannot be read"


def result_cells(results: Iterable[dict[str, Any]], caption: Callable[[dict[str, Any]], str]) -> list[Cell]:
    """Those of results, an empty one for each that failed."""
    return [("", "failed") if "error" in one else (one["path"], caption(one)) for one in results]


def _opened(path: str | Path) -> Image.Image:
    return images.open_image(path) if str(path) else Image.new("RGB", (16, 16), "white")
