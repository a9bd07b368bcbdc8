"""Contact sheets: images in cells of one size with their captions below, on as many pages as they need.

Small images are enlarged by nearest neighbor, so that their pixels can be seen; large ones are reduced to the cell.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from . import fonts, images

SMALL, LARGE = 128, 256  # pixels: bounds of a cell's width
GAP, LINE, TEXT = 8, 15, 12  # pixels: between cells, between lines of text, and the size of the font
TITLE_LINE, TITLE_TEXT = 18, 13  # pixels
MAX_LINES = 4  # of a caption
OUTLINE = (221, 221, 221)  # color of the line around images, which may be white themselves
PAGE_CELLS, PAGE_ROWS, MAX_COLUMNS, GRID_COLUMNS = 100, 12, 16, 10

ImageOrFile = Image.Image | str | Path
Cell = tuple[ImageOrFile | None, str]
"""An image or its file, or None for an empty cell, and the caption below it."""


@dataclass(frozen=True)
class Row:
    """Cells that start on a line of their own, below a title that spans the page."""

    cells: Sequence[Cell]
    title: str = ""


def contact_sheet(
    sheet_images: Sequence[Image.Image], captions: Sequence[str] | None = None, columns: int | None = None
) -> Image.Image:
    """Return one page of images in rows, each with its caption below, wrapped to four lines at most.

    columns: default, as many as make the page about square.
    """
    cells: list[Cell] = list(zip(sheet_images, captions or [""] * len(sheet_images), strict=True))
    columns = min(columns or math.ceil(math.sqrt(len(cells))), len(cells))
    return _page([Row(part) for part in _split(cells, columns)], columns, cell_size(sheet_images))


def pages(rows: Sequence[Row], columns: int | None = None) -> Iterator[Image.Image]:
    """Yield the pages of a sheet, each row beginning on a line of its own. Raises BadImage, which names the file.

    Longer rows than `columns` continue on the next line; default: as many as the longest row has, up to 16.
    """
    rows = [row for row in rows if row.cells]
    if not rows:
        return
    columns = columns or min(max(len(row.cells) for row in rows), MAX_COLUMNS)
    size = cell_size([image for row in rows for image, _ in row.cells if image is not None])
    lines = [
        Row(part, row.title if number == 0 else "")
        for row in rows
        for number, part in enumerate(_split(row.cells, columns))
    ]
    for part in _split(lines, max(1, min(PAGE_ROWS, PAGE_CELLS // columns))):
        yield _page(part, columns, size)


def grid(cells: Sequence[Cell], title: str = "") -> list[Row]:
    """Return cells as rows of an about square grid, at most 10 to a row."""
    columns = min(math.ceil(math.sqrt(len(cells))), GRID_COLUMNS)
    return [Row(part, title if number == 0 else "") for number, part in enumerate(_split(cells, columns))]


def save_pages(rows: Sequence[Row], path: str | Path) -> list[Path]:
    """Write the pages of a sheet as PNG files: `path`, and next to it `path-2.png`, `path-3.png` for more of them.

    Raises BadImage, OSError.
    """
    paths = []
    for number, page in enumerate(pages(rows), 1):
        paths.append(page_path(path, number))
        images.save_png(page, paths[-1])
    return paths


def page_path(path: str | Path, number: int) -> Path:
    """Return the file of a page, numbered from 1."""
    path = Path(path)
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def cell_size(cell_images: Iterable[ImageOrFile]) -> tuple[int, int]:
    """Return the width and height in pixels of all cells, by the typical image: 128 to 256 px wide.

    An image smaller than that is enlarged by a whole factor, so that all its pixels are squares of one size.
    """
    sizes = [image.size if isinstance(image, Image.Image) else images.image_size(image) for image in cell_images]
    if not sizes:
        return SMALL, SMALL
    width = round(statistics.median_low([width for width, _ in sizes]))
    ratio = statistics.median([height / width for width, height in sizes])
    side = min(width * math.ceil(SMALL / width), LARGE) if width < SMALL else min(width, LARGE)
    return side, round(side * min(max(ratio, 0.5), 2))


def fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return an image scaled to fit a cell: enlarged by nearest neighbor, reduced by Lanczos."""
    scale = min(size[0] / image.width, size[1] / image.height)
    if scale == 1:
        return image
    scaled = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(scaled, Image.Resampling.NEAREST if scale > 1 else images.LANCZOS)


def _split(items: Sequence, size: int) -> list:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _page(rows: Sequence[Row], columns: int, size: tuple[int, int]) -> Image.Image:
    width, height = size
    page_width = columns * (width + GAP) + GAP
    titles = [_wrap(row.title, page_width - 2 * GAP, TITLE_TEXT, 2) for row in rows]
    captions = [[_wrap(caption, width, TEXT, MAX_LINES) for _, caption in row.cells] for row in rows]
    heights = [
        TITLE_LINE * len(title) + height + LINE * max(map(len, below)) + GAP for title, below in zip(titles, captions)
    ]
    page = Image.new("RGB", (page_width, sum(heights) + GAP), "white")
    draw = ImageDraw.Draw(page)
    top = GAP
    for row, title, below, row_height in zip(rows, titles, captions, heights):
        for number, line in enumerate(title):
            _draw_text(draw, GAP, top + number * TITLE_LINE, line, TITLE_TEXT)
        image_top = top + TITLE_LINE * len(title)
        for column, ((image, _), lines) in enumerate(zip(row.cells, below)):
            left = GAP + column * (width + GAP)
            if image is not None:
                opened = image if isinstance(image, Image.Image) else images.open_image(image)
                scaled = fit(opened, size)
                x, y = left + (width - scaled.width) // 2, image_top + (height - scaled.height) // 2
                page.paste(scaled, (x, y))
                draw.rectangle((x - 1, y - 1, x + scaled.width, y + scaled.height), outline=OUTLINE)
            for number, line in enumerate(lines):
                _draw_text(draw, left, image_top + height + 1 + number * LINE, line, TEXT)
        top += row_height
    fonts.warn_uncovered("".join("".join((row.title, *(caption for _, caption in row.cells))) for row in rows))
    return page


def _draw_text(draw: ImageDraw.ImageDraw, left: float, top: int, line: str, size: int) -> None:
    for run, font in fonts.runs(line, size):
        if isinstance(font, ImageFont.FreeTypeFont):
            draw.text((left, top + size), run, fill="black", font=font, anchor="ls")  # runs share a baseline
        else:
            draw.text((left, top), run, fill="black", font=font)
        left += font.getlength(run)


def _length(text: str, size: int) -> float:
    return sum(font.getlength(run) for run, font in fonts.runs(text, size))


def _wrap(caption: str, width: int, size: int, max_lines: int) -> list[str]:
    """Return the lines of a caption that fit a width; a longer caption ends in an ellipsis."""
    lines = [""]
    for word in "".join(c if c.isprintable() else " " for c in caption[:1000]).split():
        joined = f"{lines[-1]} {word}".strip()
        if _length(joined, size) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:  # a word longer than the line, or text without spaces, is broken anywhere
            if lines[-1] and _length(lines[-1] + letter, size) > width:
                lines.append("")
            lines[-1] += letter
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], lines[max_lines - 1].rstrip() + "…"]
    return [line for line in lines if line]
