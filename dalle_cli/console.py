"""Standard output and error: results as JSON lines or aligned text, log lines, and progress.

Every command prints through this module, so that a closed pipe ends it quietly and text cannot drive the terminal.
"""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import distributed
from .exits import CLOSED_PIPE, Failure

PLAIN_EVERY = 10.0  # seconds between lines if standard error is not a terminal


def json_safe(value: Any) -> Any:
    """Return a value with NaN and infinity replaced by None, as JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: json_safe(item) for key, item in value.items()}
    return [json_safe(item) for item in value] if isinstance(value, list | tuple) else value


def wants_json(as_json: bool) -> bool:
    """Tell whether results are printed as JSON: on request, or if standard output is not a terminal."""
    return as_json or sys.stdout is None or not sys.stdout.isatty()


def print_result(result: dict[str, Any], text: Iterable[str], as_json: bool) -> None:
    """Print one result, as a JSON line or as the lines of `text`; see `wants_json`."""
    print_text(json.dumps(json_safe(result)) if wants_json(as_json) else "\n".join(map(printable, text)))


def print_text(text: str) -> None:
    """Print to standard output. A closed pipe ends the program quietly; raises Failure if writing fails."""
    if sys.stdout is None:
        raise Failure("standard output is closed: redirect it to a file or a pipe")
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter fails once more at exit
        if isinstance(error, BrokenPipeError):
            raise SystemExit(CLOSED_PIPE) from None
        raise Failure(f"standard output: {error.strerror or error}") from None


def align(rows: Iterable[Sequence[Any]], cut: bool = False) -> list[str]:
    """Return rows of cells as aligned lines; integers are right-aligned, except in the last column.

    cut: truncate lines to the width of the terminal.
    """
    rows = list(rows)
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)][:-1]
    terminal_width = shutil.get_terminal_size().columns
    lines = []
    for row, texts in zip(rows, cells):
        padded = [
            text.rjust(width) if isinstance(cell, int) else text.ljust(width)
            for cell, text, width in zip(row, texts, widths)
        ]
        line = "  ".join([*padded, texts[-1]]).rstrip()
        lines.append(line if len(line) <= terminal_width or not cut else line[: terminal_width - 1] + "…")
    return lines


class Progress:
    """Progress on standard error: a live line on a terminal, else a line every 10 s.

    total: number of units, None if unknown. Only the first of several processes shows its progress.
    """

    def __init__(self, label: str, total: int | None, quiet: bool = False):
        self.label, self.total, self.quiet = label, total, quiet or bool(distributed.rank())
        self.live = sys.stderr.isatty() and not self.quiet
        self.values: dict[str, Any] = {}  # shown until replaced
        self._width = 0
        self.begin(0)

    def begin(self, done: int) -> None:
        """Start the clock with `done` units finished, so that preparation does not count in the time left."""
        self.done = self.first = done
        self._start = time.monotonic()
        self._shown = 0.0 if self.live else self._start - PLAIN_EVERY / 2

    def advance(self, count: int = 1, **values: Any) -> None:
        """Add `count` finished units; `values` are shown next to them."""
        self.done += count
        now = time.monotonic()
        if self.quiet or now - self._shown < (0.1 if self.live else PLAIN_EVERY):
            return
        self._shown = now
        self._show({**self.values, **values}, now)

    def note(self, line: str) -> None:
        """Print a separate line, above the live one."""
        if not self.quiet:
            self._clear()
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        self._clear()

    def _show(self, values: Mapping[str, Any], now: float) -> None:
        rate = (self.done - self.first) / max(now - self._start, 1e-9)
        parts = [self.label, f"{self.done}/{self.total}" if self.total else str(self.done)]
        parts += [f"{name} {_short(value)}" for name, value in values.items()]
        if self.total and rate > 0:
            parts.append(f"{format_duration((self.total - self.done) / rate)} left")
        line = "  ".join(parts)
        if self.live:
            line = line[: max(20, _columns() - 1)]
            sys.stderr.write("\r" + line.ljust(self._width))
            sys.stderr.flush()
            self._width = len(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self.live and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
            self._width = 0


def format_duration(seconds: float) -> str:
    """Return a duration as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _columns() -> int:
    return shutil.get_terminal_size().columns


class StageProgress:
    """Progress of work in stages: call it with the name of a stage, the units done, and their number."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self._bar: Progress | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bar is None or self._bar.label != stage:
            self.close()
            self._bar = Progress(stage, total, quiet=self.quiet)
        self._bar.advance(done - self._bar.done)

    def close(self) -> None:
        if self._bar:
            self._bar.close()


def printable(text: str) -> str:
    """Return `text` with control characters replaced by ?, as names in files can hold escape sequences."""
    return "".join(c if c.isprintable() else "?" for c in text)


def log(line: str) -> None:
    """Print a line that is not a result to standard error."""
    print(printable(line), file=sys.stderr, flush=True)
