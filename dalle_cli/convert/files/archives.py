"""Files that torch writes: zip archives, TorchScript archives, and the format before torch 1.6. Nothing is executed.

Tensors are read storage by storage into memory of their own, those of the state dict alone; storages that tensors share
stay shared. Sizes are checked against the file before any memory is taken.
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
CODE = 64 << 20  # bytes of TorchScript code, unpacked
MODULES = 100_000
DEPTH = 100
WRAPPERS = ("state_dict", "model_state_dict", "model", "weights")
DECLARED = re.compile(r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]$", re.MULTILINE)

# From a class of TorchScript, the names of its parameters and buffers, None where the archive does not tell.
Declared = Callable[[Name], "set[str] | None"]


def read(path: Path, empty: bool = False) -> dict[str, Tensor]:
    """The state dict in a file of torch, or of the module that it holds; empty: shapes and types, on the meta device.

    Raises ConvertError, in one line.
    """
    try:
        with open(path, "rb") as file:
            archive = ZipArchive(file) if file.read(4) == b"PK\x03\x04" else OldFile(file)
            slices = state_dict(archive.value, archive.declared)
            if empty:
                return {key: _shape(one) for key, one in slices.items()}
            buffers: dict[str, Tensor] = {}
            return {key: _tensor(one, archive, buffers) for key, one in slices.items()}
    except ConvertError as error:
        raise ConvertError(f"{path}: {error}") from None
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, ValueError, EOFError, RuntimeError):
        raise ConvertError(f"{path}: a damaged archive, or none of torch") from None


class ZipArchive:
    """A zip archive of torch.save or of TorchScript."""

    declared: Declared | None = None

    def __init__(self, file: BinaryIO):
        self.zip = zipfile.ZipFile(file)
        self.code = CODE
        self.classes: dict[str, dict[str, set[str]]] = {}  # by module and name: what they declare
        infos = self.zip.infolist()
        self.infos = {info.filename: info for info in infos}
        file.seek(0, 2)
        if len(self.infos) != len(infos) or sum(info.compress_size for info in infos) > file.tell():
            raise ConvertError("an archive that lies about the sizes or names of its parts")
        for name in self.infos:
            if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name:
                raise ConvertError(f"an archive with the file name {Name(name)}, which leads out of it")
        roots = [name.removesuffix("/data.pkl") for name in self.infos if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(roots) != 1:
            raise ConvertError("a zip archive, but not one of torch: it has no data.pkl")
        (self.root,) = roots
        if self._text("byteorder") == "big":
            raise ConvertError("numbers in big-endian order are not read")
        if f"{self.root}/constants.pkl" in self.infos:
            self.declared = self._declared
        with self.zip.open(self._stored("data.pkl")) as stream:
            self.value = Machine().run(stream)  # type: ignore[arg-type]

    def numbers(self, storage: Storage) -> Tensor:
        info = self._stored(f"data/{storage.key}")
        wanted = storage.size * WIDTHS[storage.dtype]
        if info.file_size != wanted:
            raise ConvertError(f"the part {Name(info.filename)} has {info.file_size} bytes, {wanted} are declared")
        with self.zip.open(info) as stream:
            return _fill(stream, wanted)  # the archive's checksum is compared at the last byte

    def _stored(self, name: str) -> zipfile.ZipInfo:
        info = self.infos.get(f"{self.root}/{name}")
        if info is None:
            raise ConvertError(f"the archive lacks its part {Name(name)}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ConvertError(f"the part {Name(name)} is compressed, which torch's are not")
        return info

    def _text(self, name: str) -> str:
        info = self.infos.get(f"{self.root}/{name}")
        if info is None:
            return ""
        with self.zip.open(info) as stream:
            text = stream.read(self.code + 1)
        self.code -= len(text)
        if self.code < 0:
            raise ConvertError(f"more than {CODE >> 20} MiB of code")
        return text.decode("utf-8", "replace")

    def _declared(self, kind: Name) -> set[str] | None:
        module, _, name = kind.text.rpartition(".")
        if module not in self.classes:
            found = DECLARED.findall(self._text(f"code/{module.replace('.', '/')}.py"))
            self.classes[module] = {of: set(re.findall(r'"([^"]*)"', f"{one} {two}")) for of, one, two in found}
        return self.classes[module].get(name)


class OldFile:
    """A file of torch.save before torch 1.6: five pickles, then the numbers of each storage after their count."""

    declared: Declared | None = None

    def __init__(self, file: BinaryIO):
        self.file = file
        file.seek(0)
        if Machine().run(file) != MAGIC:
            raise ConvertError("a pickle, but not of torch.save")
        system: Any = (Machine().run(file), Machine().run(file))
        if system[0] != PROTOCOL or not isinstance(system[1], dict) or not system[1].get("little_endian", True):
            raise ConvertError("a format or order of bytes that is not read")
        machine = Machine()
        self.value = machine.run(file)
        keys = Machine().run(file)
        if not isinstance(keys, list) or not all(isinstance(key, str) and key in machine.storages for key in keys):
            raise ConvertError("a damaged list of tensors")
        self.places: dict[str, int] = {}
        place = file.tell()
        end = file.seek(0, 2)
        for key in keys:
            storage = machine.storages[key]
            file.seek(place)
            (count,) = struct.unpack("<q", file.read(8))
            place += 8 + storage.size * WIDTHS[storage.dtype]
            if count != storage.size or place > end:
                raise ConvertError("cut short, or it lies about its sizes")
            self.places[key] = place - storage.size * WIDTHS[storage.dtype]

    def numbers(self, storage: Storage) -> Tensor:
        if storage.key not in self.places:
            raise ConvertError(f"the numbers '{Name(storage.key)}' are missing")
        self.file.seek(self.places[storage.key])
        return _fill(self.file, storage.size * WIDTHS[storage.dtype])


def _fill(stream: Any, size: int) -> Tensor:
    buffer = torch.empty(size, dtype=torch.uint8)
    view: Any = buffer.numpy()
    done = 0
    while done < size:
        chunk = stream.read(min(CHUNK, size - done))
        if not chunk:
            raise ConvertError("cut short")
        view[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
        done += len(chunk)
    return buffer


def _tensor(one: Slice, archive: "ZipArchive | OldFile", buffers: dict[str, Tensor]) -> Tensor:
    key = one.storage.key
    if key not in buffers:
        buffers[key] = archive.numbers(one.storage)
    empty = torch.empty(0, dtype=getattr(torch, one.dtype))
    return empty.set_(buffers[key].untyped_storage(), one.offset, one.shape, one.stride)


def _shape(one: Slice) -> Tensor:
    return torch.empty(one.shape, dtype=getattr(torch, one.dtype), device="meta")


def state_dict(value: Any, declared: Declared | None = None) -> dict[str, Slice]:
    """The tensors of an unpickled value by key: of a state dict, wrapped or not, of a module, or of a tuple, numbered.

    Raises ConvertError for anything else.
    """
    while isinstance(value, dict):
        inner = [value[key] for key in WRAPPERS if isinstance(value.get(key), dict | Object)]
        if not inner:
            break
        value = inner[0]
    found: Any = value
    if isinstance(value, Object):
        found = {}
        _collect(value, "", declared, found, [])
    elif isinstance(value, list | tuple):
        found = dict(enumerate(value))
    if not isinstance(found, dict) or not any(isinstance(one, Slice) for one in found.values()):
        raise ConvertError(f"holds {_described(value)} and no state dict")
    others = [str(key) for key, one in found.items() if not isinstance(one, Slice)]
    if others:
        raise ConvertError(f"a state dict with what is no tensor: {', '.join(str(Name(key)) for key in others[:3])}")
    return {str(key): one for key, one in found.items()}


def _described(value: Any) -> str:
    if isinstance(value, dict):
        return f"a mapping ({', '.join(str(Name(str(key))) for key in list(value)[:5])})"
    return f"a {value.name if isinstance(value, Object) else type(value).__name__}"


def _collect(module: Object, prefix: str, declared: Declared | None, out: dict[str, Slice], seen: list[Object]) -> None:
    """Add a module's parameters and buffers, then its children's, under the names that torch gives them."""
    seen.append(module)
    if len(seen) > MODULES or prefix.count(".") > DEPTH:
        raise ConvertError(f"more than {MODULES:,} modules, or {DEPTH} in each other")
    own, children = _parts(module, declared)
    out.update((f"{prefix}{name}", one) for name, one in own.items() if isinstance(one, Slice))
    for name, child in children.items():
        if isinstance(child, Object):
            _collect(child, f"{prefix}{name}.", declared, out, seen)


def _parts(module: Object, declared: Declared | None) -> tuple[dict, dict]:
    """Parameters and buffers of a module by name, and its children."""
    attributes: dict[str, Any] = module.state if isinstance(module.state, dict) else {}
    if "_modules" in attributes:
        own, buffers, children = (_dict(module, attributes.get(key)) for key in ("_parameters", "_buffers", "_modules"))
        passing = attributes.get("_non_persistent_buffers_set")
        kept = {key: one for key, one in buffers.items() if not isinstance(passing, set) or key not in passing}
        return own | kept, children
    if declared is None:
        raise ConvertError(f"holds a {module.name}, which is no module of torch")
    names = declared(module.name)
    return {key: one for key, one in attributes.items() if names is None or key in names}, attributes


def _dict(module: Object, value: Any) -> dict:
    if not isinstance(value, dict):
        raise ConvertError(f"holds a {module.name}, a damaged module")
    return value
