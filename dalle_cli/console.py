"""Standard output and error: results as JSON lines or aligned text, and the progress of long work."""

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

PLAIN_EVERY = 10.0  # seconds between lines where standard error is not a terminal


def json_safe(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null, so that the readers of a line do not fail."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: json_safe(item) for key, item in value.items()}
    return [json_safe(item) for item in value] if isinstance(value, list | tuple) else value


def wants_json(as_json: bool) -> bool:
    """Whether results are printed for programs: when asked for, and where standard output is no terminal."""
    return as_json or sys.stdout is None or not sys.stdout.isatty()


def print_result(result: dict[str, Any], text: Iterable[str], as_json: bool) -> None:
    """Print one result: a JSON line for programs, the lines of `text` for people."""
    print_text(json.dumps(json_safe(result)) if wants_json(as_json) else "\n".join(map(printable, text)))


def print_text(text: str) -> None:
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


def align(rows: Iterable[Sequence[Any]], cut: bool = False) -> list[str]:
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


class Progress:
    """How far a long piece of work is, on standard error: one live line on a terminal, else a line every 10 s.

    total: units in all, or None when unknown. Of several processes the first alone shows its own.
    """

    def __init__(self, label: str, total: int | None, quiet: bool = False):
        self.label, self.total, self.quiet = label, total, quiet or bool(distributed.rank())
        self.live = sys.stderr.isatty() and not self.quiet
        self.values: dict[str, Any] = {}  # shown until replaced
        self._width = 0
        self.begin(0)

    def begin(self, done: int) -> None:
        """Start the clock now, with `done` units behind: preparation does not count for the time left."""
        self.done = self.first = done
        self._began = time.monotonic()
        self._shown = 0.0 if self.live else self._began - PLAIN_EVERY / 2

    def advance(self, count: int = 1, **values: Any) -> None:
        """Count `count` more units; `values` are shown beside them, numbers shortened."""
        self.done += count
        now = time.monotonic()
        if self.quiet or now - self._shown < (0.1 if self.live else PLAIN_EVERY):
            return
        self._shown = now
        self._show({**self.values, **values}, now)

    def note(self, line: str) -> None:
        """Print a line of its own, above a live one."""
        if not self.quiet:
            self._clear()
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        self._clear()

    def _show(self, values: Mapping[str, Any], now: float) -> None:
        rate = (self.done - self.first) / max(now - self._began, 1e-9)
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
    """A duration as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _columns() -> int:
    return shutil.get_terminal_size().columns


class StageProgress:
    """Progress, on standard error, of work in stages; called with a stage's name, how much is done, and of how much."""

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
    """`text` without what would drive a terminal: names in files come from strangers."""
    return "".join(c if c.isprintable() else "?" for c in text)


def log(line: str) -> None:
    """Print a line that is not a result to standard error."""
    print(printable(line), file=sys.stderr, flush=True)
