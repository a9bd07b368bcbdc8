"""Read pickles without executing them, into plain containers, names and descriptions of tensors.

We keep our own reader because Python's pickle runs whatever a file names; here names are never imported, and the few
calls that files of weights need are functions of ours (pickle_names.py). The standard library's pickletools splits the
opcodes, which calls nothing either. Memory is allocated only for what the bytes of the pickle hold.
"""

import pickletools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ..layout import ConvertError
from .pickle_names import Name, Object, Storage, call, mapping, members, name, refused, storage

MAX_BYTES = 16 << 20  # of a pickle; the largest published file has half a million
MAX_STEPS = 1_000_000  # opcodes, and items that calls copy; each makes at most one small object


class Stream:
    """The next MAX_BYTES bytes of a file; reading more is an error."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.left = MAX_BYTES

    def read(self, count: int) -> bytes:
        return self._take(self.file.read(min(count, self.left + 1)))

    def readline(self) -> bytes:
        return self._take(self.file.readline(self.left + 1))

    def _take(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left < 0:
            raise ConvertError(f"a pickle of more than {MAX_BYTES >> 20} MiB")
        return data


@dataclass
class Machine:
    """Reads one pickle. storages: all that it refers to, by key."""

    stack: list = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict = field(default_factory=dict)
    steps: int = 0
    storages: dict[str, Storage] = field(default_factory=dict)

    def run(self, file: BinaryIO) -> Any:
        """Return the value of a pickle and leave `file` after its end. Raises ConvertError for anything harmful."""
        try:
            for opcode, argument, _ in pickletools.genops(Stream(file)):  # type: ignore[arg-type]
                self.work(1)
                if opcode.name in LITERALS:
                    self.stack.append(argument)
                elif opcode.name in OPCODES:
                    OPCODES[opcode.name](self, argument)
                else:
                    raise ConvertError(f"has the opcode {opcode.name}, which no file of weights needs")
            return self.stack.pop()
        except ConvertError:
            raise
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, struct.error):
            raise ConvertError("a damaged pickle, or not a pickle") from None

    def work(self, steps: int) -> None:
        """Count steps. Raises ConvertError for too many."""
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise ConvertError(f"a pickle of more than {MAX_STEPS:,} steps")

    def items(self) -> list:
        """Pop what was pushed after the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def fill(self, kind: type, items: list) -> None:
        """Put items into the container on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Object):  # a mapping of some library
            return
        if type(target) is not kind:
            raise ConvertError(f"a damaged pickle: puts items into something that is not a {kind.__name__}")
        if kind is dict:
            target.update(mapping(_pairs(items)))
        elif kind is set:
            target.update(members(items))
        else:
            target.extend(items)

    def tuple(self, count: int) -> None:
        """Push a tuple of the last `count` values."""
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def new(self) -> None:
        """Push an instance that is made without arguments, as modules are stored."""
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, Name) or arguments != ():
            raise refused(kind if isinstance(kind, Name) else "an instance of something that is not a class")
        self.stack.append({} if kind.text == "collections.OrderedDict" else Object(kind))

    def build(self) -> None:
        """Set the state of an object; drop that of a mapping, `_metadata` of state dicts, which holds no weights."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Object):
            self.stack[-1].state = state
        elif not isinstance(self.stack[-1], dict):
            raise ConvertError("a damaged pickle: sets the state of something that is not an object")

    def reduce(self) -> None:
        """Push the result of a call."""
        arguments, function = self.stack.pop(), self.stack.pop()
        self.work(sum(len(value) for value in arguments if isinstance(value, list | tuple | dict | set)))
        self.stack.append(call(function, arguments))

    def global_(self) -> None:
        """Push a name."""
        rest, module = self.stack.pop(), self.stack.pop()
        self.stack.append(name(module, rest))

    def persistent(self) -> None:
        """Push what a persistent id refers to: a storage or the class of a module."""
        referent = storage(self.stack.pop())
        if isinstance(referent, Storage) and self.storages.setdefault(referent.key, referent) != referent:
            raise ConvertError(f"the storage '{Name(referent.key)}' is described in two ways")
        self.stack.append(referent)


def _pairs(items: list) -> Iterator[tuple]:
    return zip(items[::2], items[1::2], strict=True)


LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
OPCODES: dict[str, Callable[[Machine, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, a: None),
    "NONE": lambda m, a: m.stack.append(None),
    "NEWTRUE": lambda m, a: m.stack.append(True),
    "NEWFALSE": lambda m, a: m.stack.append(False),
    "EMPTY_DICT": lambda m, a: m.stack.append({}),
    "EMPTY_LIST": lambda m, a: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, a: m.stack.append(()),
    "EMPTY_SET": lambda m, a: m.stack.append(set()),
    "MARK": lambda m, a: m.marks.append(len(m.stack)),
    "POP": lambda m, a: m.stack.pop(),
    "POP_MARK": lambda m, a: m.items(),
    "DUP": lambda m, a: m.stack.append(m.stack[-1]),
    "DICT": lambda m, a: m.stack.append(mapping(_pairs(m.items()))),
    "LIST": lambda m, a: m.stack.append(m.items()),
    "TUPLE": lambda m, a: m.stack.append(tuple(m.items())),
    "TUPLE1": lambda m, a: m.tuple(1),
    "TUPLE2": lambda m, a: m.tuple(2),
    "TUPLE3": lambda m, a: m.tuple(3),
    "FROZENSET": lambda m, a: m.stack.append(members(m.items())),
    "APPEND": lambda m, a: m.fill(list, [m.stack.pop()]),
    "APPENDS": lambda m, a: m.fill(list, m.items()),
    "ADDITEMS": lambda m, a: m.fill(set, m.items()),
    "SETITEM": lambda m, a: m.fill(dict, [m.stack.pop(), m.stack.pop()][::-1]),
    "SETITEMS": lambda m, a: m.fill(dict, m.items()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda m, a: m.memo.__setitem__(a, m.stack[-1])),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, a: m.stack.append(m.memo[a])),
    "MEMOIZE": lambda m, a: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    "GLOBAL": lambda m, a: m.stack.append(name(*a.split(" ", 1))),
    "STACK_GLOBAL": lambda m, a: m.global_(),
    "REDUCE": lambda m, a: m.reduce(),
    "NEWOBJ": lambda m, a: m.new(),
    "BUILD": lambda m, a: m.build(),
    "BINPERSID": lambda m, a: m.persistent(),
}  # fmt: skip
