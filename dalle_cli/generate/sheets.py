"""Contact sheets of results: `--sheet` of all commands that write or score images."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import contact_sheet, distributed, images
from ..contact_sheet import Cell, Row
from ..exits import USAGE, Failure
from ..files import check_target
from .requests import GenerationRequest


def check_sheet(path: str | Path, overwrite: bool = False, option: str = "--sheet") -> None:
    """Check that a sheet can be written, before any work is done. Raises Failure."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise Failure(f"{option} {path}: a sheet is a PNG file; give a name that ends in .png", USAGE)
    check_target(path, option, overwrite)


def save_sheet(path: str | Path, results: Sequence[dict[str, Any]], names: bool = False) -> None:
    """Write the contact sheet of results: a row for each prompt that has several images. Raises Failure.

    names: add the file names to the captions, for images that the user named.
    """
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if "error" not in result:
            by_prompt.setdefault(result.get("prompt") or "", []).append(result)
    if not by_prompt:
        return
    if len(by_prompt) == 1:
        ((prompt, group),) = by_prompt.items()
        rows = contact_sheet.grid(_ranked_cells(group, names), prompt)
    elif all(len(group) == 1 for group in by_prompt.values()):
        cells = [
            (path, f"{label} {prompt}") for prompt, group in by_prompt.items() for path, label in _ranked_cells(group)
        ]
        rows = contact_sheet.grid(cells)
    else:
        rows = [Row(_ranked_cells(group, names), prompt) for prompt, group in by_prompt.items()]
    save_rows(path, rows)


def save_grid(path: str | Path, cells: Sequence[Cell]) -> None:
    """Write a sheet of cells in an about square grid. Raises Failure."""
    if cells:
        save_rows(path, contact_sheet.grid(cells))


def save_rows(path: str | Path, rows: Iterable[Row | Sequence[Cell]]) -> None:
    """Write a sheet of rows, the first page to `path`. Raises Failure.

    Of several processes only the first writes: it has written the images, perhaps just now.
    """
    if distributed.rank():
        return
    try:
        contact_sheet.save_pages([row if isinstance(row, Row) else Row(row) for row in rows], path)
    except images.BadImage as error:
        raise Failure(f"--sheet {path}: {error}") from None
    except OSError as error:
        raise Failure(f"--sheet {path}: cannot be written: {error.strerror or error}") from None


def original_cell(request: GenerationRequest, crop: str = "center") -> Cell:
    """Return the first cell of a row: the image that a request works on, cropped or padded as the system saw it."""
    path = request.fields["image"]
    try:
        image = images.open_image(path)
    except images.BadImage:
        return None, f"{Path(path).name}: cannot be read"
    square = images.pad_to_square(image) if crop == "pad" else images.center_crop(image, min(image.size))
    return square, f"original: {Path(path).name}"


def result_cells(results: Iterable[dict[str, Any]], caption: Callable[[dict[str, Any]], str]) -> list[Cell]:
    """Return the cells of results, an empty one for each that failed."""
    return [(None, "failed") if "error" in result else (result["path"], caption(result)) for result in results]


def _ranked_cells(results: Sequence[dict[str, Any]], names: bool = False) -> list[Cell]:
    """Return cells labeled by rank and score, or, where nothing was scored, by the index that file names begin with."""
    cells: list[Cell] = []
    for rank, result in enumerate(results, 1):
        score = result.get("score")
        if isinstance(score, float):
            label = f"#{rank} · {score:.3f}"
        else:
            label = f"{result['index']:06d}" if isinstance(result.get("index"), int) else f"#{rank}"
        cells.append((result["path"], f"{label} {Path(result['path']).name}" if names else label))
    return cells
