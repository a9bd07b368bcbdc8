"""Where a run reports: RUN/log.jsonl always, the terminal, and TensorBoard or wandb where asked for."""

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from . import processes

PLAIN_EVERY = 10.0  # seconds between lines where standard error is not a terminal


@dataclass(frozen=True)
class Tracker:
    """The `tracker` section. extras: trackers beside the JSON lines. project: their name for it."""

    extras: list[Literal["tensorboard", "wandb"]] = field(default_factory=list)
    project: str = "dalle"


def finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null, so that the readers of a line do not fail."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


class Log:
    """Appends one JSON object a line, `finite`. Opening it cuts off a last line that a crash left unfinished."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            text = path.read_bytes()
            if text and not text.endswith(b"\n"):
                with open(path, "rb+") as file:
                    file.truncate(text.rfind(b"\n") + 1)
        # A file name that is not UTF-8 becomes JSON's own escapes.
        self._file = open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115  (held for the run)

    def write(self, **values: Any) -> None:
        try:
            self._file.write(json.dumps(finite(values), ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            error.filename = str(self.path)  # so that whoever shows it says where the disk is full
            raise

    def close(self) -> None:
        self._file.close()


class Progress:
    """How far a long piece of work is, on standard error: one live line on a terminal, else a line every 10 s.

    total: units in all, or None when unknown. Of several processes the first alone shows its own.
    """

    def __init__(self, label: str, total: int | None, quiet: bool = False):
        self.label, self.total, self.quiet = label, total, quiet or bool(processes.rank())
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
            parts.append(f"{clock((self.total - self.done) / rate)} left")
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


def clock(seconds: float) -> str:
    """A duration as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns
