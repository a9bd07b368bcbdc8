"""Members of a tar, located by their headers only: nothing is unpacked, and a name is only a name.

POSIX (ustar, pax) and GNU (long names, large sizes) archives, uncompressed, as img2dataset, WebDataset, tar and
Python write them. A quarter of the time of `tarfile`, and it can start at any header.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 512
MAX_NAME_LENGTH = 1 << 16
REGULAR, LONG_NAME, PAX = (b"0", b"\0", b"7"), (b"L",), (b"x", b"X")
DESCRIBING = (*LONG_NAME, *PAX, b"K", b"g")  # types whose data describes the next member


class TarError(ValueError):
    """A tar that is cut short or damaged from a byte on, which the message names."""


class Member(NamedTuple):
    name: str
    header: int  # byte at which the first header block of this member starts
    offset: int  # byte at which its data starts
    size: int
    regular: bool  # a file with data; not a folder, link or device


def members(file: BinaryIO, start: int = 0) -> Iterator[Member]:
    """Members from byte `start`, which must be that of a header; only those whose data is all there.

    file: opened for reading in binary, best without a buffer. Raises TarError at the first byte that cannot be read.
    """
    end = file.seek(0, os.SEEK_END)
    position = header = start
    name, size = None, None  # from a record that precedes the header they belong to
    while True:
        file.seek(position)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise TarError(f"cut short at byte {end}")
        if not block[0] and not block.strip(b"\0"):
            return
        length = _checked_size(block, position)
        kind = block[156:157]
        data = position + BLOCK
        if kind in DESCRIBING:
            record = file.read(min(length, MAX_NAME_LENGTH))
            if kind in LONG_NAME:
                name = record.rstrip(b"\0").decode("utf-8", "backslashreplace")
            elif kind in PAX:
                name, size = _pax(record, name, size)
        else:
            length = length if size is None else size
            if data + length > end:
                raise TarError(f"cut short at byte {end}")
            named = _name(block) if name is None else name
            yield Member(named, header, data, length, kind in REGULAR and not named.endswith("/"))
            name, size = None, None
            header = data + -(-length // BLOCK) * BLOCK
        position = data + -(-length // BLOCK) * BLOCK


def ends_whole(file: BinaryIO) -> bool:
    """Return whether a tar ends in the zeros that close one, which a truncated tar rarely does. Reads one kilobyte."""
    end = file.seek(0, os.SEEK_END)
    if end < 2 * BLOCK or end % BLOCK:
        return False
    file.seek(end - 2 * BLOCK)
    return not file.read(2 * BLOCK).strip(b"\0")


def _checked_size(block: bytes, position: int) -> int:
    try:
        length = _number(block[124:136])
        if _number(block[148:156]) == sum(block[:148]) + 256 + sum(block[156:]) and length >= 0:
            return length
    except ValueError:
        pass
    raise TarError(f"no tar header at byte {position}")


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: too large for octal digits
        return int.from_bytes(field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


def _name(block: bytes) -> str:
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345]:
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "backslashreplace")


def _pax(record: bytes, name: str | None, size: int | None) -> tuple[str | None, int | None]:
    """Name and size from the records `LENGTH KEY=VALUE` of a pax header."""
    while record:
        digits, space, _ = record.partition(b" ")
        if not (space and digits.isdigit() and len(digits) + 1 < int(digits) <= len(record)):
            break
        key, _, value = record[len(digits) + 1 : int(digits) - 1].partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "backslashreplace")
        elif key == b"size" and value.isdigit():
            size = int(value)
        record = record[int(digits) :]
    return name, size
