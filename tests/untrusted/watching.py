"""Watch what a command does besides printing: files written elsewhere, programs run, time."""

import importlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
RUNNING = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class")
CHANGING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate")
watched: list[tuple[Path, list[str]]] = []  # the folder that may be written, and what was done outside of it


def audit(event: str, details: tuple) -> None:
    if not watched:
        return
    allowed, events = watched[-1]
    if event in RUNNING:
        events.append(f"{event} {details}")
    paths = details[:2] if event in CHANGING else ()
    if event == "open" and (details[2] or 0) & WRITING:
        paths = details[:1]
    for path in paths:
        if isinstance(path, str | bytes):
            path = os.path.abspath(os.fsdecode(path))
            if not path.startswith(str(allowed)) and not re.search(r"^/dev/(null$|shm/)|__pycache__", path):
                events.append(f"{event} {path}")


@cache
def begin() -> None:
    """Hook every file and program that the interpreter opens; a hook is added once and cannot be removed.

    torch makes a temporary folder when its compiler is first imported (for the estimates of `--dry-run`), once in a
    process: that happens here, so that no command is blamed for it.
    """
    importlib.import_module("torch._dynamo")
    sys.addaudithook(audit)


class TooSlow(BaseException):
    """Time is up; nothing in the package may catch it."""


@contextmanager
def watching(allowed: Path, seconds: float = 60.0) -> Iterator[list[str]]:
    """List what is done outside of `allowed`; TooSlow is raised after `seconds`."""

    def late(number, frame):
        raise TooSlow

    begin()
    events: list[str] = []
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    watched.append((allowed, events))
    try:
        yield events
    finally:
        watched.pop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
