"""Stopping in good order: a signal sets a flag, the ranks agree on it at the end of a step."""

import math
import os
import signal
import time
from types import FrameType

from ..exits import INTERRUPTED, STOPPED
from ..launch import end_with_parent

LAUNCHED = {"RANK", "ACCELERATE_MIXED_PRECISION"}  # set by torchrun and --processes, and by accelerate launch


class Stop:
    """Whether somebody asked the run to stop, and with which exit code; its time being over asks for 75 too.

    seconds: from now on; None for no end. SIGTERM and SIGUSR1 ask for 75 (state saved, run the same command again), the
    first Ctrl-C for 130. A Ctrl-C after any of them leaves at once; whatever is half-written then carries a temporary
    name. `accelerate launch` passes no signal on and torchrun not all: when the launcher is ended by one, that counts
    as SIGTERM.
    """

    def __init__(self, seconds: float | None = None):
        self._asked = 0
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._before: dict[int, object] = {}

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
        """The exit code to stop with, or 0 to go on."""
        return self._asked or (STOPPED if time.monotonic() > self._deadline else 0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._asked:
            os._exit(INTERRUPTED)
        self._asked = self._asked or (INTERRUPTED if number == signal.SIGINT else STOPPED)
