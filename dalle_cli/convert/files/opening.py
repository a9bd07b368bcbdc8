"""Open a source, a file or a folder of published weights, and recognize it, once. Nothing in a file is executed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ... import checkpoint
from ...exits import BAD_INPUT, Failure
from ..layout import ConvertError, Layout, State
from ..layouts import all_layouts
from ..recognition import recognize
from . import archives
from .folders import INDEX, choose, shards, weight_files

MAX_CONFIG = 16 << 20  # bytes of a configuration
DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32"},
    **{"I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
}  # from safetensors' names to torch's


@dataclass(frozen=True)
class Weights:
    """Published weights, opened and recognized; their numbers are not read yet.

    state: shapes and dtypes by the layout's keys, on the meta device. files: for each file of weights, the layout's key
    of each of its tensors. config: the content of the layout's configuration file, None where there is none.
    """

    layout: Layout
    state: State
    files: Mapping[Path, Mapping[str, str]]
    config: dict[str, Any] | None = None

    @property
    def path(self) -> Path:
        """The first file."""
        return next(iter(self.files))

    def load(self) -> dict[str, Tensor]:
        """Read the tensors by the layout's keys. Raises ConvertError, CheckpointError."""
        state: dict[str, Tensor] = {}
        for file, names in self.files.items():
            tensors = read_file(file)
            if tensors.keys() != names.keys():
                raise ConvertError(f"{file}: was changed while it was read; run the command again")
            state |= {names[key]: tensor for key, tensor in tensors.items()}
        return state

    def published_name(self) -> str | None:
        """The name of the published file that the first file is, byte for byte; None for an unknown checksum."""
        for kind in {"sha256" if len(checksum) == 64 else "md5" for checksum in self.layout.checksums}:
            with open(self.path, "rb") as stream:
                if name := self.layout.checksums.get(hashlib.file_digest(stream, kind).hexdigest()):
                    return name
        return None


def open_weights(source: str | Path) -> Weights:
    """Open a file of weights, a folder with one, or a model in several files or folders, and recognize its layout.

    Raises ConvertError, CheckpointError or Failure, with the remedy.
    """
    path = Path(source)
    if not path.exists():
        raise Failure(f"{path}: no such file or folder", BAD_INPUT)
    state: dict[str, Tensor] = {}
    files: dict[Path, dict[str, str]] = {}
    for prefix, place in (_parts(path) or {"": path}).items():
        for file, tensors in _read_place(place).items():
            files[file] = {key: prefix + key for key in tensors}
            state |= {prefix + key: tensor for key, tensor in tensors.items()}
    first = next(iter(files))
    try:
        layout, stripped = recognize(state)
    except ConvertError as error:
        raise ConvertError(f"{first}: {_part_of_a_model(state) or error}") from None
    names = dict(zip(state, stripped))
    files = {file: {key: names[name] for key, name in keys.items()} for file, keys in files.items()}
    if layout.side_file and not stripped.keys() & set(layout.side_file[1]):
        file, tensors = _read_side_file(first, *layout.side_file)
        files[file] = dict(zip(tensors, layout.side_file[1]))
        stripped |= dict(zip(layout.side_file[1], tensors.values()))
    return Weights(layout, stripped, files, configuration(layout, first))


def _parts(path: Path) -> dict[str, Path]:
    """Where the parts of a model are that a path is, or is one of, by prefix; none where it is no such model."""
    folder = path if path.is_dir() else path.parent
    for layout in all_layouts().values():
        for root in dict.fromkeys((folder, path.parent)):
            places = {prefix: root / name for prefix, name in layout.files.items()}
            complete = places and all(place.exists() for place in places.values())
            if complete and (path in places.values() or (path == root and set(models_in(root)) == {*places.values()})):
                return places
    return {}


def models_in(folder: Path) -> list[Path]:
    """Return the files of weights in a folder, and the folders in it that hold weights."""
    names = weight_files(_file_names(folder), side_file_patterns())
    folders = sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))
    with_weights = [inner for inner in folders if weight_files(_file_names(inner), side_file_patterns())]
    return [*(folder / name for name in names), *with_weights]


def side_file_patterns() -> list[str]:
    """Return patterns of the names of files that go with files of weights."""
    return [layout.side_file[0] for layout in all_layouts().values() if layout.side_file]


def _file_names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if file.is_file()]


def _read_place(place: Path) -> dict[Path, dict[str, Tensor]]:
    """Shapes and dtypes by file: of one file, of shards by their index, or of a folder with either."""
    if place.is_dir():
        if not weight_files(_file_names(place), side_file_patterns()) and (inner := models_in(place)):
            names = ", ".join(folder.name for folder in inner[:8])
            raise Failure(f"{place}: a folder of several models; add --system, or name one of {names}", BAD_INPUT)
        place = choose(place, side_file_patterns())
    if not place.name.endswith(INDEX):
        return {place: read_file(place, meta=True)}
    files, keys = shards(place)
    tensors: dict[Path, dict[str, Tensor]] = {}
    seen: set[str] = set()
    for file in files:
        tensors[file] = read_file(file, meta=True)
        if twice := seen & tensors[file].keys():
            raise ConvertError(f"{file}: {min(twice)} is in another shard too")
        seen |= tensors[file].keys()
    if lost := sorted(keys - seen):
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        raise ConvertError(f"{place}: {len(lost)} keys are in no shard: {', '.join(lost[:5])}{more}")
    return tensors


def _read_side_file(file: Path, pattern: str, keys: tuple[str, ...]) -> tuple[Path, dict[str, Tensor]]:
    """Tensors that are published in a file of their own, next to another."""
    matches = sorted(file.parent.glob(pattern))
    if len(matches) != 1:
        which = "only one of them" if matches else "the published file of that name"
        raise Failure(f"{file}: needs {' and '.join(keys)}; put {which} next to it: {pattern}", BAD_INPUT)
    tensors = read_file(matches[0], meta=True)
    if len(tensors) != len(keys):
        raise ConvertError(f"{matches[0]}: {len(tensors)} tensors, where {' and '.join(keys)} are needed")
    return matches[0], tensors


def _part_of_a_model(state: State) -> str | None:
    """What to do where the keys are those of one of the files of a model that is published in several."""
    for layout in all_layouts().values():
        for prefix in layout.files:
            if layout.recognizes({prefix + key: tensor for key, tensor in state.items()}):
                names = " and ".join(layout.files.values())
                return f"a part of {layout.name}; put {names} into one folder and import the folder"
    return None


def read_file(file: Path, meta: bool = False) -> dict[str, Tensor]:
    """Return the tensors of one file of safetensors or of torch; meta: without their numbers, on the meta device.

    Raises ConvertError, CheckpointError.
    """
    try:
        with open(file, "rb") as stream:
            start = stream.read(9)
    except OSError as error:
        raise ConvertError(f"{file}: cannot be read: {error.strerror or error}") from None
    if start[8:] != b"{":
        return archives.read(file, meta)
    header = checkpoint.read_header(file)
    metadata = header.get("__metadata__") or {}
    if isinstance(metadata, dict) and metadata.get("format") == "dalle":
        raise ConvertError(f"{file}: already a checkpoint of dalle; use it as it is, or `dalle export` it")
    try:
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
        if meta:
            return {name: _meta_tensor(header[name]) for name in names}
        return {name: _read_tensor(file, name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise ConvertError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from None


def _read_tensor(file: Path, name: str) -> Tensor:
    """One tensor in memory of its own; the file is opened for each, because mapped pages count as memory."""
    with safe_open(file, framework="pt") as tensors:
        return tensors.get_tensor(name).clone()


def _meta_tensor(entry: dict[str, Any]) -> Tensor:
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"the dtype {entry['dtype']} is not supported")
    return torch.empty(entry["shape"], dtype=getattr(torch, DTYPES[entry["dtype"]]), device="meta")


def configuration(layout: Layout, file: Path) -> dict[str, Any] | None:
    """Return the layout's configuration next to a file of its weights, by folder where it has several.

    None where there is none. Raises ConvertError when it is no JSON object.
    """
    if layout.config is None:
        return None
    if all("." in name for name in layout.files.values()):
        return read_json(file.parent / layout.config.file)
    root = file.parent.parent
    configs = {name: read_json(root / name / layout.config.file) for name in layout.files.values()}
    return {name: config for name, config in configs.items() if config is not None} or None


def read_json(file: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, None where there is no file. Raises ConvertError."""
    if not file.is_file():
        return None
    try:
        if file.stat().st_size > MAX_CONFIG:
            raise ValueError
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ConvertError(f"{file}: not a configuration in JSON")
    return content
