"""Graceful stops: a signal sets a flag, and the processes agree on it at the end of a step."""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..exits import INTERRUPTED, STOPPED
from ..launch import end_with_parent

LAUNCHED = {"RANK", "ACCELERATE_MIXED_PRECISION"}  # set by torchrun and --processes, and by accelerate launch


class Stopped(BaseException):
    """A signal that arrived while a batch was being read; no handler of bad samples may catch it."""


class Stop:
    """Records that a run was asked to stop, and with which exit code; the end of its time asks for 75 too.

    seconds: time from now on; None for no limit. SIGTERM and SIGUSR1 ask for 75 (state saved, run the same command
    again), the first Ctrl-C for 130. A Ctrl-C after any of them exits at once; a half-written file then has a temporary
    name. `accelerate launch` passes on no signal and torchrun not all: when a signal ends the launcher, that counts as
    SIGTERM.
    """

    def __init__(self, seconds: float | None = None):
        self._asked = 0
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._before: dict[int, object] = {}
        self._waiting = False

    def __enter__(self) -> "Stop":
        if LAUNCHED & os.environ.keys():
            end_with_parent()
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def code(self) -> int:
        """The exit code to stop with, or 0 to continue."""
        return self._asked or (STOPPED if time.monotonic() > self._deadline else 0)

    @contextmanager
    def interruptible(self, enabled: bool = True) -> Iterator[None]:
        """Raise Stopped at once when a signal arrives inside this block, instead of at the end of the step.

        enabled: only one process may leave by itself; several must agree first.
        """
        self._waiting = enabled
        try:
            yield
        finally:
            self._waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._asked:
            os._exit(INTERRUPTED)
        self._asked = self._asked or (INTERRUPTED if number == signal.SIGINT else STOPPED)
        if self._waiting:
            self._waiting = False
            raise Stopped
