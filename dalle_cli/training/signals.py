"""Stopping in good order: a signal sets a flag, the ranks agree on it at the end of a step."""

import os
import signal
from types import FrameType

from ..exits import INTERRUPTED, STOPPED


class Stop:
    """Whether somebody asked the run to stop, and with which exit code.

    SIGTERM and SIGUSR1 ask for 75 (state saved, run the same command again), the first Ctrl-C for 130. A Ctrl-C after
    any of them leaves at once; whatever is half-written then carries a temporary name.
    """

    def __init__(self):
        self.code = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Stop":
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.code:
            os._exit(INTERRUPTED)
        self.code = self.code or (INTERRUPTED if number == signal.SIGINT else STOPPED)
