"""Read files of torch.save and TorchScript archives without torch.load and torch.jit.load.

We keep our own reader because torch's either execute what a file holds or refuse pickled modules such as OpenAI's dVAE.
Only tensors of the state dict are read; tensors that share a storage still share it. Sizes are checked against the file
before memory is allocated.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..layout import ConvertError
from .pickle_names import WIDTHS, Name, Object, Slice, Storage
from .pickles import Machine

CHUNK = 1 << 20
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what files of the old format begin with
MAX_CODE = 64 << 20  # bytes of unpacked TorchScript code
MAX_MODULES = 100_000
MAX_DEPTH = 100
WRAPPERS = ("state_dict", "model_state_dict", "model", "weights")
DECLARED = re.compile(r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]$", re.MULTILINE)

# From a class of TorchScript to the names of its parameters and buffers, None where the archive does not declare them.
Declared = Callable[[Name], "set[str] | None"]


def read(path: Path, meta: bool = False) -> dict[str, Tensor]:
    """Return the state dict in a file of torch, or that of the module in it. meta: shapes and dtypes, without numbers.

    Raises ConvertError in one line.
    """
    try:
        with open(path, "rb") as file:
            archive = ZipArchive(file) if file.read(4) == b"PK\x03\x04" else OldFile(file)
            slices = state_dict(archive.value, archive.declared)
            if meta:
                return {key: _meta_tensor(view) for key, view in slices.items()}
            buffers: dict[str, Tensor] = {}
            return {key: _tensor(view, archive, buffers) for key, view in slices.items()}
    except ConvertError as error:
        raise ConvertError(f"{path}: {error}") from None
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, ValueError, EOFError, RuntimeError):
        raise ConvertError(f"{path}: a damaged archive, or not one of torch") from None


class ZipArchive:
    """A zip archive of torch.save or of TorchScript."""

    declared: Declared | None = None

    def __init__(self, file: BinaryIO):
        self.zip = zipfile.ZipFile(file)
        self.code_left = MAX_CODE
        self.classes: dict[str, dict[str, set[str]]] = {}  # declared names, by module and class
        infos = self.zip.infolist()
        self.infos = {info.filename: info for info in infos}
        file.seek(0, 2)
        if len(self.infos) != len(infos) or sum(info.compress_size for info in infos) > file.tell():
            raise ConvertError("an archive with wrong sizes or duplicate names of its parts")
        for name in self.infos:
            if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name:
                raise ConvertError(f"an archive with the file name {Name(name)}, which points outside of it")
        roots = [name.removesuffix("/data.pkl") for name in self.infos if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(roots) != 1:
            raise ConvertError("a zip archive, but not one of torch: it has no data.pkl")
        (self.root,) = roots
        if self._text("byteorder") == "big":
            raise ConvertError("big-endian numbers are not supported")
        if f"{self.root}/constants.pkl" in self.infos:
            self.declared = self._declared
        with self.zip.open(self._stored("data.pkl")) as stream:
            self.value = Machine().run(stream)  # type: ignore[arg-type]

    def read_storage(self, storage: Storage) -> Tensor:
        """Read the bytes of a storage. Raises ConvertError for another size than declared."""
        info = self._stored(f"data/{storage.key}")
        size = storage.size * WIDTHS[storage.dtype]
        if info.file_size != size:
            raise ConvertError(f"the part {Name(info.filename)} has {info.file_size} bytes, {size} are declared")
        with self.zip.open(info) as stream:
            return _read_bytes(stream, size)  # zipfile compares the checksum at the last byte

    def _stored(self, name: str) -> zipfile.ZipInfo:
        info = self.infos.get(f"{self.root}/{name}")
        if info is None:
            raise ConvertError(f"the archive lacks its part {Name(name)}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ConvertError(f"the part {Name(name)} is compressed; torch does not compress")
        return info

    def _text(self, name: str) -> str:
        info = self.infos.get(f"{self.root}/{name}")
        if info is None:
            return ""
        with self.zip.open(info) as stream:
            text = stream.read(self.code_left + 1)
        self.code_left -= len(text)
        if self.code_left < 0:
            raise ConvertError(f"more than {MAX_CODE >> 20} MiB of TorchScript code")
        return text.decode("utf-8", "replace")

    def _declared(self, kind: Name) -> set[str] | None:
        module, _, name = kind.text.rpartition(".")
        if module not in self.classes:
            classes = DECLARED.findall(self._text(f"code/{module.replace('.', '/')}.py"))
            self.classes[module] = {
                name: set(re.findall(r'"([^"]*)"', f"{parameters} {buffers}")) for name, parameters, buffers in classes
            }
        return self.classes[module].get(name)


class OldFile:
    """A file of torch.save before torch 1.6: five pickles, then the size and the numbers of each storage."""

    declared: Declared | None = None

    def __init__(self, file: BinaryIO):
        self.file = file
        file.seek(0)
        if Machine().run(file) != MAGIC:
            raise ConvertError("a pickle, but not one of torch.save")
        system: Any = (Machine().run(file), Machine().run(file))
        if system[0] != PROTOCOL or not isinstance(system[1], dict) or not system[1].get("little_endian", True):
            raise ConvertError("an unsupported format or byte order")
        machine = Machine()
        self.value = machine.run(file)
        keys = Machine().run(file)
        if not isinstance(keys, list) or not all(isinstance(key, str) and key in machine.storages for key in keys):
            raise ConvertError("a damaged list of tensors")
        self.offsets: dict[str, int] = {}
        offset = file.tell()
        end = file.seek(0, 2)
        for key in keys:
            storage = machine.storages[key]
            file.seek(offset)
            (count,) = struct.unpack("<q", file.read(8))
            offset += 8 + storage.size * WIDTHS[storage.dtype]
            if count != storage.size or offset > end:
                raise ConvertError("truncated, or its sizes are wrong")
            self.offsets[key] = offset - storage.size * WIDTHS[storage.dtype]

    def read_storage(self, storage: Storage) -> Tensor:
        """Read the bytes of a storage. Raises ConvertError where they are missing."""
        if storage.key not in self.offsets:
            raise ConvertError(f"the numbers '{Name(storage.key)}' are missing")
        self.file.seek(self.offsets[storage.key])
        return _read_bytes(self.file, storage.size * WIDTHS[storage.dtype])


def _read_bytes(stream: Any, size: int) -> Tensor:
    buffer = torch.empty(size, dtype=torch.uint8)
    view: Any = buffer.numpy()
    done = 0
    while done < size:
        chunk = stream.read(min(CHUNK, size - done))
        if not chunk:
            raise ConvertError("truncated")
        view[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
        done += len(chunk)
    return buffer


def _tensor(view: Slice, archive: "ZipArchive | OldFile", buffers: dict[str, Tensor]) -> Tensor:
    key = view.storage.key
    if key not in buffers:
        buffers[key] = archive.read_storage(view.storage)
    empty = torch.empty(0, dtype=getattr(torch, view.dtype))
    return empty.set_(buffers[key].untyped_storage(), view.offset, view.shape, view.stride)


def _meta_tensor(view: Slice) -> Tensor:
    return torch.empty(view.shape, dtype=getattr(torch, view.dtype), device="meta")


def state_dict(value: Any, declared: Declared | None = None) -> dict[str, Slice]:
    """Return the tensors of an unpickled value by key.

    value: a state dict, wrapped or not, a module, or a tuple, whose tensors are numbered. Raises ConvertError for
    anything else.
    """
    while isinstance(value, dict):
        inner = [value[key] for key in WRAPPERS if isinstance(value.get(key), dict | Object)]
        if not inner:
            break
        value = inner[0]
    state: Any = value
    if isinstance(value, Object):
        state = {}
        _collect(value, "", declared, state, [])
    elif isinstance(value, list | tuple):
        state = dict(enumerate(value))
    if not isinstance(state, dict) or not any(isinstance(item, Slice) for item in state.values()):
        raise ConvertError(f"holds {_describe(value)} and no state dict")
    others = [str(key) for key, item in state.items() if not isinstance(item, Slice)]
    if others:
        names = ", ".join(str(Name(key)) for key in others[:3])
        raise ConvertError(f"a state dict with values that are no tensors: {names}")
    return {str(key): item for key, item in state.items()}


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        return f"a mapping ({', '.join(str(Name(str(key))) for key in list(value)[:5])})"
    return f"a {value.name if isinstance(value, Object) else type(value).__name__}"


def _collect(module: Object, prefix: str, declared: Declared | None, out: dict[str, Slice], seen: list[Object]) -> None:
    """Add the parameters and buffers of a module and its children to `out`, under the names that torch gives them."""
    seen.append(module)
    if len(seen) > MAX_MODULES or prefix.count(".") > MAX_DEPTH:
        raise ConvertError(f"more than {MAX_MODULES:,} modules, or nested deeper than {MAX_DEPTH}")
    tensors, children = _parts(module, declared)
    out.update((f"{prefix}{name}", item) for name, item in tensors.items() if isinstance(item, Slice))
    for name, child in children.items():
        if isinstance(child, Object):
            _collect(child, f"{prefix}{name}.", declared, out, seen)


def _parts(module: Object, declared: Declared | None) -> tuple[dict, dict]:
    """The parameters and buffers of a module by name, and its children."""
    attributes: dict[str, Any] = module.state if isinstance(module.state, dict) else {}
    if "_modules" in attributes:
        parameters, buffers, children = (
            _dict(module, attributes.get(key)) for key in ("_parameters", "_buffers", "_modules")
        )
        transient = attributes.get("_non_persistent_buffers_set")
        if isinstance(transient, set):
            buffers = {key: item for key, item in buffers.items() if key not in transient}
        return parameters | buffers, children
    if declared is None:
        raise ConvertError(f"holds a {module.name}, which is not a module of torch")
    names = declared(module.name)
    return {key: item for key, item in attributes.items() if names is None or key in names}, attributes


def _dict(module: Object, value: Any) -> dict:
    if not isinstance(value, dict):
        raise ConvertError(f"holds a {module.name}, a damaged module")
    return value
