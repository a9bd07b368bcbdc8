"""How results that are no pictures are printed: JSON lines for programs, aligned text for people."""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..exits import CLOSED_PIPE, Failure

if TYPE_CHECKING:
    from ..trackers import Progress


def lines_wanted(as_json: bool) -> bool:
    """Whether results are printed for programs: when asked for, and where standard output is no terminal."""
    return as_json or sys.stdout is None or not sys.stdout.isatty()


def report(result: dict[str, Any], text: Iterable[str], as_json: bool) -> None:
    """Print one result: a JSON line for programs, the lines of `text` for people."""
    from ..trackers import finite

    output(json.dumps(finite(result)) if lines_wanted(as_json) else "\n".join(map(printable, text)))


def output(text: str) -> None:
    """Print to standard output. A closed pipe ends the program quietly. Raises Failure when nothing can be written."""
    if sys.stdout is None:
        raise Failure("standard output is closed; results need somewhere to go")
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter tries again at its end
        if isinstance(error, BrokenPipeError):
            raise SystemExit(CLOSED_PIPE) from None
        raise Failure(f"standard output: {error.strerror or error}") from None


def columns(rows: Iterable[Sequence[Any]], cut: bool = False) -> list[str]:
    """Rows of as many cells as aligned text, whole numbers to the right but for the last column.

    cut: lines end where the terminal does.
    """
    rows = list(rows)
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)][:-1]
    room = shutil.get_terminal_size().columns
    lines = []
    for row, texts in zip(rows, cells):
        padded = [
            text.rjust(width) if isinstance(cell, int) else text.ljust(width)
            for cell, text, width in zip(row, texts, widths)
        ]
        line = "  ".join([*padded, texts[-1]]).rstrip()
        lines.append(line if len(line) <= room or not cut else line[: room - 1] + "…")
    return lines


class Watch:
    """Progress, on standard error, of work in stages; called with a stage's name, how much is done, and of how much."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self._bar: Progress | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        from ..trackers import Progress

        if self._bar is None or self._bar.label != stage:
            self.close()
            self._bar = Progress(stage, total, quiet=self.quiet)
        self._bar.advance(done - self._bar.done)

    def close(self) -> None:
        if self._bar:
            self._bar.close()


def printable(text: str) -> str:
    """`text` without what would drive a terminal: names in files come from strangers."""
    return "".join(c if c.isprintable() else "?" for c in text)
