"""What a command does beyond its answer: files written elsewhere, programs run, time without end."""

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
watched: list[tuple[Path, list[str]]] = []  # what may be written below, and what was done elsewhere


def audit(event: str, details: tuple) -> None:
    if not watched:
        return
    allowed, found = watched[-1]
    if event in RUNNING:
        found.append(f"{event} {details}")
    paths = details[:2] if event in CHANGING else ()
    if event == "open" and (details[2] or 0) & WRITING:
        paths = details[:1]
    for path in paths:
        if isinstance(path, str | bytes):
            path = os.path.abspath(os.fsdecode(path))
            if not path.startswith(str(allowed)) and not re.search(r"^/dev/(null$|shm/)|__pycache__", path):
                found.append(f"{event} {path}")


@cache
def begin() -> None:
    """Have the interpreter tell of every file and program; such a hook is added once and cannot be taken back.

    torch makes a folder of temporary files when its compiler is first loaded (for the estimates of `--dry-run`), in
    this process once, whichever command comes first: that is done here, and is not what a command is watched for.
    """
    importlib.import_module("torch._dynamo")
    sys.addaudithook(audit)


class TooSlow(BaseException):
    """Time is up; nothing in the package may catch it."""


@contextmanager
def watching(allowed: Path, seconds: float = 60.0) -> Iterator[list[str]]:
    """Within, what is done outside of `allowed` is noted in the list given; TooSlow is raised after so many seconds."""

    def late(number, frame):
        raise TooSlow

    begin()
    found: list[str] = []
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    watched.append((allowed, found))
    try:
        yield found
    finally:
        watched.pop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
