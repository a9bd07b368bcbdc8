"""From what a user names, a file or a folder, to its tensors by key. Nothing in a file is executed."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .. import checkpoint
from ..exits import BAD_INPUT, Failure
from . import archives, sources
from .keys import ConvertError, Source

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".th", ".safetensors")
# Of a folder that holds the same weights several times, the first of these.
PREFERRED = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
CONFIG = 16 << 20  # bytes of a configuration


def gather(source: str) -> tuple[dict[str, Tensor], list[Path]]:
    """The tensors of a file, of a folder with one, or of a model in several, and the files that they come from.

    Raises ConvertError, CheckpointError or Failure, with what to do instead.
    """
    path = Path(source)
    if not path.exists():
        raise Failure(f"{path}: no such file or folder", BAD_INPUT)
    folder = path if path.is_dir() else path.parent
    candidates = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    for one in sources().values():
        files = {prefix: folder / name for prefix, name in one.files.items()}
        whole = files and all(file.is_file() for file in files.values())
        if whole and (path in files.values() or (path == folder and set(candidates) == set(files.values()))):
            state = {prefix + key: value for prefix, file in files.items() for key, value in read(file).items()}
            return state, list(files.values())
    file = path if path != folder else _one(folder, candidates)
    state = read(file)
    _check_whole(file, state)
    return state, [file]


def _one(folder: Path, candidates: list[Path]) -> Path:
    found = [file for name in PREFERRED if (file := folder / name) in candidates] or candidates
    if not found:
        raise Failure(f"{folder}: no weights in this folder ({', '.join(SUFFIXES)})", BAD_INPUT)
    if len(found) > 1 and found[0].name not in PREFERRED:
        names = ", ".join(file.name for file in found[:6])
        raise Failure(f"{folder}: several files of weights; name one of {names}", BAD_INPUT)
    return found[0]


def _check_whole(file: Path, state: dict[str, Tensor]) -> None:
    for one in sources().values():
        for prefix in one.files:
            if one.recognises({prefix + key: tensor for key, tensor in state.items()}):
                names = " and ".join(one.files.values())
                raise ConvertError(f"{file}: a part of {one.name}; put {names} into one folder and import the folder")


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of one file, of safetensors or of torch. Raises ConvertError, CheckpointError."""
    try:
        with open(file, "rb") as stream:
            start = stream.read(9)
    except OSError as error:
        raise ConvertError(f"{file}: cannot be read: {error.strerror or error}") from None
    if start[8:] != b"{":
        return archives.read(file)
    metadata = checkpoint.read_header(file).get("__metadata__") or {}
    if isinstance(metadata, dict) and metadata.get("format") == "dalle":
        raise ConvertError(f"{file}: a checkpoint of dalle; use it as it is, or `dalle export` it")
    try:
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
        return {name: _own(file, name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise ConvertError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from None


def _own(file: Path, name: str) -> Tensor:
    """One tensor in memory of its own; the file is opened for each, for what is mapped counts as memory."""
    with safe_open(file, framework="pt") as tensors:
        return tensors.get_tensor(name).clone()


def configuration(source: Source, folder: Path) -> dict[str, Any] | None:
    """The layout's configuration in a folder, if there is one. Raises ConvertError when it is no JSON mapping."""
    file = folder / source.config.file if source.config else None
    if file is None or not file.is_file():
        return None
    try:
        if file.stat().st_size > CONFIG:
            raise ValueError
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ConvertError(f"{file}: not a configuration in JSON")
    return found


def published(source: Source, file: Path) -> str | None:
    """The name of the published file that this one is, byte for byte; None when it is none whose sum is known."""
    if not source.sums:
        return None
    with open(file, "rb") as stream:
        return source.sums.get(hashlib.file_digest(stream, "sha256").hexdigest())
