"""From what a user names, a file or a folder, to its tensors by key. Nothing in a file is executed."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ... import checkpoint
from ...exits import BAD_INPUT, Failure
from ..layout import ConvertError, Layout
from ..layouts import all_layouts
from . import archives
from .folders import INDEX, choose, shards, weights

CONFIG = 16 << 20  # bytes of a configuration
DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32"},
    **{
        "I16": "int16",
        "I8": "int8",
        "U8": "uint8",
        "BOOL": "bool",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E5M2": "float8_e5m2",
    },
}  # of safetensors


def gather(source: str, empty: bool = False) -> tuple[dict[str, Tensor], list[Path]]:
    """The tensors of a file, of a folder with one, or of a model in several, and the files that they come from.

    empty: shapes and types alone, on the meta device. Raises ConvertError, CheckpointError or Failure, with what to do
    instead.
    """
    path = Path(source)
    if not path.exists():
        raise Failure(f"{path}: no such file or folder", BAD_INPUT)
    if parts := _parts(path):
        state, files = {}, []
        for prefix, place in parts.items():
            found, of = _read_place(place, empty)
            state |= {prefix + key: value for key, value in found.items()}
            files += of
        return state, files
    state, files = _read_place(path, empty)
    for one in all_layouts().values():
        if one.side_file and one.recognizes(state) and not state.keys() & set(one.side_file[1]):
            state |= _beside(files[0], *one.side_file, empty)
    _check_whole(files[0], state)
    return state, files


def _parts(path: Path) -> dict[str, Path]:
    """Where the parts of a model lie that a path is, or is one of; none where it is no such model."""
    folder = path if path.is_dir() else path.parent
    for one in all_layouts().values():
        for root in dict.fromkeys((folder, path.parent)):
            places = {prefix: root / name for prefix, name in one.files.items()}
            whole = places and all(place.exists() for place in places.values())
            if whole and (path in places.values() or (path == root and set(models_in(root)) == set(places.values()))):
                return places
    return {}


def models_in(folder: Path) -> list[Path]:
    """The files of weights in a folder, and the folders in it that hold weights."""
    found = weights((file.name for file in folder.iterdir() if file.is_file()), patterns())
    inside = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    holding = [one for one in inside if weights((file.name for file in one.iterdir() if file.is_file()), patterns())]
    return [*(folder / name for name in found), *holding]


def patterns() -> list[str]:
    """Of names of files that go beside others."""
    return [one.side_file[0] for one in all_layouts().values() if one.side_file]


def _read_place(place: Path, empty: bool) -> tuple[dict[str, Tensor], list[Path]]:
    """The tensors of a file, of shards by their index, or of a folder with either."""
    if place.is_dir():
        if not weights((file.name for file in place.iterdir() if file.is_file()), patterns()):
            inside = [one.name for one in models_in(place)]
            if inside:
                told = ", ".join(inside[:8])
                raise Failure(f"{place}: a folder of several models; add --system, or name one of {told}", BAD_INPUT)
        place = choose(place, patterns())
    if not place.name.endswith(INDEX):
        return read(place, empty), [place]
    files, keys = shards(place)
    state: dict[str, Tensor] = {}
    for file in files:
        found = read(file, empty)
        if twice := state.keys() & found.keys():
            raise ConvertError(f"{file}: {min(twice)} is in another shard too")
        state |= found
    if lost := sorted(keys - state.keys()):
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        raise ConvertError(f"{place}: {len(lost)} keys are in no shard: {', '.join(lost[:5])}{more}")
    return state, files


def _beside(file: Path, pattern: str, keys: tuple[str, ...], empty: bool) -> dict[str, Tensor]:
    """Tensors that are published in a file beside another."""
    found = sorted(file.parent.glob(pattern))
    if len(found) != 1:
        told = "one of them alone" if found else "the published file of that name"
        raise Failure(f"{file}: needs {' and '.join(keys)}; put {told} beside it: {pattern}", BAD_INPUT)
    tensors = list(read(found[0], empty).values())
    if len(tensors) != len(keys):
        raise ConvertError(f"{found[0]}: {len(tensors)} tensors, where {' and '.join(keys)} are needed")
    return dict(zip(keys, tensors))


def _check_whole(file: Path, state: dict[str, Tensor]) -> None:
    if any(one.recognizes(state) for one in all_layouts().values()):
        return
    for one in all_layouts().values():
        for prefix in one.files:
            if one.recognizes({prefix + key: tensor for key, tensor in state.items()}):
                names = " and ".join(one.files.values())
                raise ConvertError(f"{file}: a part of {one.name}; put {names} into one folder and import the folder")


def read(file: Path, empty: bool = False) -> dict[str, Tensor]:
    """The tensors of one file, of safetensors or of torch; empty: on the meta device, their numbers not read.

    Raises ConvertError, CheckpointError.
    """
    try:
        with open(file, "rb") as stream:
            start = stream.read(9)
    except OSError as error:
        raise ConvertError(f"{file}: cannot be read: {error.strerror or error}") from None
    if start[8:] != b"{":
        return archives.read(file, empty)
    header = checkpoint.read_header(file)
    metadata = header.get("__metadata__") or {}
    if isinstance(metadata, dict) and metadata.get("format") == "dalle":
        raise ConvertError(f"{file}: a checkpoint of dalle; use it as it is, or `dalle export` it")
    try:
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
        if empty:
            return {name: _shape(header[name]) for name in names}
        return {name: _own(file, name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise ConvertError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from None


def _own(file: Path, name: str) -> Tensor:
    """One tensor in memory of its own; the file is opened for each, for what is mapped counts as memory."""
    with safe_open(file, framework="pt") as tensors:
        return tensors.get_tensor(name).clone()


def _shape(told: dict[str, Any]) -> Tensor:
    if told["dtype"] not in DTYPES:
        raise ValueError(f"numbers of the kind {told['dtype']} are not read")
    return torch.empty(told["shape"], dtype=getattr(torch, DTYPES[told["dtype"]]), device="meta")


def configuration(source: Layout, file: Path) -> dict[str, Any] | None:
    """The layout's configuration beside a file of its weights, if there is one; by folder, where it has several.

    Raises ConvertError when it is no JSON mapping.
    """
    if source.config is None:
        return None
    if all("." in name for name in source.files.values()):
        return json_in(file.parent / source.config.file)
    root = file.parent.parent
    found = {name: json_in(root / name / source.config.file) for name in source.files.values()}
    return {name: one for name, one in found.items() if one is not None} or None


def json_in(file: Path) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no file. Raises ConvertError."""
    if not file.is_file():
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


def published(source: Layout, file: Path) -> str | None:
    """The name of the published file that this one is, byte for byte; None when it is none whose sum is known."""
    for kind in {"sha256" if len(known) == 64 else "md5" for known in source.checksums}:
        with open(file, "rb") as stream:
            if name := source.checksums.get(hashlib.file_digest(stream, kind).hexdigest()):
                return name
    return None
