"""Files that are whole or not there."""

import os
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Have `write` fill a temporary file beside `path`, then put it in place; the old file stays until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # that of any new file here; safetensors would let nobody else read its own
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # so that the rename survives a power cut too
    finally:
        os.close(folder)


def remove_left_overs(folder: Path, names: Container[str] | None = None) -> None:
    """Remove the temporary files that killed writers left in a folder: those of the files `names`, or of all."""
    for path in folder.glob(".*.tmp"):
        if names is None or path.name[1:].rsplit(".", 2)[0] in names:
            path.unlink(missing_ok=True)
