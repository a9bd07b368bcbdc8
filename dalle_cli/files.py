"""Files that are whole or not there."""

import os
import tempfile
from collections.abc import Callable, Container
from importlib import resources
from pathlib import Path
from typing import Any

from .exits import USAGE, WOULD_OVERWRITE, Failure

CHECKPOINT = "model.safetensors"  # in the folder of a run


def find_checkpoint(name: str) -> Path | None:
    """Return the file of a checkpoint: a file, a folder that holds model.safetensors, a run under checkpoints/, or a
    model that ships with the package (`starter/clip`). None if there is none.
    """
    candidates = [Path(name), Path(name) / CHECKPOINT, Path("checkpoints") / name / CHECKPOINT]
    if name.startswith("starter/"):
        candidates.append(Path(str(resources.files("dalle_cli"))) / f"{name}.safetensors")
    return next((path for path in candidates if os.path.isfile(path)), None)  # Path.is_file raises for long names


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


def check_target(path: Path, option: str, overwrite: bool = False) -> None:
    """Whether a file can be written at `path`, asked before the work that it is to hold. Raises Failure."""
    if os.path.isdir(path):
        raise Failure(f"{option} {path} is a folder: give the name of a file", USAGE)
    if os.path.lexists(path) and not overwrite:
        raise Failure(f"{option} {path} is there already: give --overwrite or another name", WOULD_OVERWRITE)
    make_folder(path.parent, option)


def make_folder(folder: Path, option: str) -> None:
    """Make a folder, if there is none, and see that files can be written in it. Raises Failure."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # permissions alone do not tell of a read-only or full disk
            pass
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file is in the way" if in_the_way else error.strerror or error
        raise Failure(f"{option} {folder}: cannot write there: {reason}; give another place") from None
