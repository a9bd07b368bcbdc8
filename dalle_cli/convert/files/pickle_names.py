"""What a pickle may name and call: classes stay names, tensors become descriptions, the rest is refused."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..layout import ConvertError

MAX_NAME = 1000  # characters of a name or key
MAX_DIMENSIONS = 64  # of a tensor


@dataclass(frozen=True)
class Name:
    """A class or function as a pickle names it."""

    text: str

    def __str__(self) -> str:
        shown = "".join(c if c.isprintable() else "?" for c in self.text)
        return shown if len(shown) <= 80 else shown[:77] + "..."


@dataclass(eq=False)
class Object:
    """An instance of a class that is not imported. state: what its attributes are set from."""

    name: Name
    state: Any = None


@dataclass(frozen=True)
class Storage:
    """Numbers outside of the pickle. dtype: torch's name of their type; size: their count."""

    key: str
    dtype: str
    size: int


@dataclass(frozen=True)
class Slice:
    """A tensor: a strided view inside the bounds of its storage. dtype: torch's name."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


DTYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
WIDTHS = {"float64": 8, "int64": 8, "complex64": 8, "complex128": 16, "float32": 4, "int32": 4, "uint32": 4} | {
    **{"float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2, "uint64": 8, "int8": 1, "uint8": 1, "bool": 1},
    **{"float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1},
}  # bytes per number


def storage(pid: Any) -> Any:
    """Return what a persistent id refers to: a Storage, or the class of a module in old files. Raises ConvertError."""
    match pid:
        case ("module", Name() as module, str() | None, str() | None):
            return module
        case ("storage", Name() as kind, str(key), str(), int(size), *view) if _key(key) and view in ([], [None]):
            dtype = DTYPES.get(kind.text.rpartition(".")[2]) if kind.text.startswith("torch.") else None
            if dtype and size >= 0:
                return Storage(key, dtype, size)
            raise ConvertError(f"numbers of the type {kind} are not supported")
    raise ConvertError("a damaged reference to a tensor's numbers")


def tensor(base: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Slice:
    """Return the description of a tensor. Raises ConvertError for a view that leaves its storage or is larger."""
    dtype = rest[2].text.removeprefix("torch.") if len(rest) > 2 and isinstance(rest[2], Name) else None
    if not isinstance(base, Storage) or not all(_sizes(value) for value in ((offset,), shape, stride)):
        raise ConvertError("a damaged description of a tensor")
    dtype = dtype or base.dtype
    if any(isinstance(value, dict) and value for value in rest[2:]):
        raise ConvertError("a conjugate or negative view of a tensor is not supported")
    if dtype not in WIDTHS:
        raise ConvertError(f"numbers of the type {Name(dtype)} are not supported")
    count, last = 1, offset
    for size, step in zip(shape, stride):
        count, last = count * size, last + (size - 1) * step
    stored = base.size * WIDTHS[base.dtype] // WIDTHS[dtype]
    if len(shape) != len(stride) or count > stored or (count and last >= stored):
        sizes = "x".join(map(str, shape))
        raise ConvertError(f"a tensor of {sizes} numbers from {offset} on, where {stored} are stored")
    return Slice(base, dtype, offset, shape, stride)


def _sizes(value: Any) -> bool:
    if not isinstance(value, tuple) or len(value) > MAX_DIMENSIONS:
        return False
    return all(type(size) is int and 0 <= size < 1 << 48 for size in value)


def mapping(pairs: Iterable[tuple]) -> dict:
    """Return a dict of pairs. Raises ConvertError for a key that is no short scalar."""
    return {_key(key): value for key, value in pairs}


def members(values: Iterable = ()) -> set:
    """Return a set of values. Raises ConvertError for a value that is no short scalar."""
    return {_key(value) for value in values}


def _key(value: Any) -> Any:
    """A value that may be a key: nothing long or nested, which could take forever to hash."""
    short = isinstance(value, str | bytes) and len(value) <= MAX_NAME
    if short or (isinstance(value, int) and value.bit_length() <= 64) or isinstance(value, float | Name | None):
        return value
    raise ConvertError(f"a damaged mapping: a {type(value).__name__} as key")


# What files of weights call, by name.
CALLS: dict[str, Callable] = {
    "collections.OrderedDict": lambda: {},
    "collections.defaultdict": lambda *default: {},
    "builtins.set": members,
    "__builtin__.set": members,
    "__builtin__.bytes": lambda: b"",
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": tensor,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": tensor,
    "torch._utils._rebuild_parameter": lambda data, *rest: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *rest: data,
    **{f"torch.jit._pickle.build_{kind}list": list for kind in ("int", "double", "bool", "tensor")},
    "torch.jit._pickle.restore_type_tag": lambda value, tag: value,
}
# Calls next to weights in files of training runs; their results are ignored.
OPAQUE = {
    *("torch.device", "argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath", "_codecs.encode"),
    *("collections.deque", "collections.Counter"),
    *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
}
# Names that may occur and may not be called.
PLAIN = {
    f"{module}.{kind.__name__}" for module in ("builtins", "__builtin__") for kind in (dict, list, int, float, str)
}
PLAIN |= {"typing.Any"}


def name(module: Any, rest: Any) -> Name:
    """Return a name. Raises ConvertError for one of the standard library that no file of weights needs."""
    if not (isinstance(module, str) and isinstance(rest, str) and len(module) + len(rest) <= MAX_NAME):
        raise ConvertError("a damaged name")
    full = Name(f"{module}.{rest}")
    known = full.text in CALLS or full.text in OPAQUE or full.text in PLAIN
    if not known and module.partition(".")[0] in sys.stdlib_module_names | {"__builtin__"}:
        raise refused(full)
    return full


def refused(what: Any) -> ConvertError:
    """Return the error for a name or call that is not allowed."""
    return ConvertError(f"asks for {what}, which no file of weights needs; nothing was executed")


def call(function: Any, arguments: Any) -> Any:
    """Return the result of one of CALLS, or an Object for one of OPAQUE. Raises ConvertError for any other."""
    if not isinstance(function, Name):
        raise ConvertError("calls something that is not a function; nothing was executed")
    if function.text in OPAQUE:
        return Object(function)
    if function.text not in CALLS:
        raise refused(function)
    return CALLS[function.text](*arguments)
