"""Write files atomically, check targets before work begins, and find checkpoints."""

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
    """Let `write` fill a temporary file next to `path`, then rename it; the old file stays until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # of new files; those of safetensors are readable by their owner only
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # so that the rename survives a power failure
    finally:
        os.close(folder)


def remove_temporary_files(folder: Path, names: Container[str] | None = None) -> None:
    """Remove the temporary files that killed processes left in a folder. names: only those of these files."""
    for path in folder.glob(".*.tmp"):
        if names is None or path.name[1:].rsplit(".", 2)[0] in names:
            path.unlink(missing_ok=True)


def check_target(path: Path, option: str, overwrite: bool = False) -> None:
    """Check, before the work begins, that a file can be written at `path`. Raises Failure."""
    if os.path.isdir(path):
        raise Failure(f"{option} {path} is a folder: give a file name", USAGE)
    if os.path.lexists(path) and not overwrite:
        raise Failure(f"{option} {path} already exists: use --overwrite or another name", WOULD_OVERWRITE)
    make_folder(path.parent, option)


def make_folder(folder: Path, option: str) -> None:
    """Create a folder unless it exists, and check that files can be written to it. Raises Failure."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # permissions do not show whether the disk is read-only or full
            pass
    except OSError as error:
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file has this name" if is_file else error.strerror or error
        raise Failure(f"{option} {folder}: cannot write to this folder: {reason}; use another folder") from None
