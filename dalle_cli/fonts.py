"""Fonts for captions: Pillow's own for Latin text, and for every other script the first installed font that covers it.

Coverage is read from each font's `cmap` table (OpenType specification, formats 4 and 12), because Pillow draws a
character that a font lacks as an empty box without saying so.
"""

import functools
import io
import os
import struct
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from PIL import ImageFont

from . import console

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
OUTLINES = (b"glyf", b"CFF ", b"CFF2")  # tables of scalable glyphs; color emoji fonts have bitmaps instead
SPECIAL_STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "condensed", "mono", "serif", "math")
MAX_TABLE = 16 << 20  # bytes
REPLACEMENT = "?"


@functools.cache
def default_font(size: int) -> Font:
    """Return Pillow's built-in font; without FreeType it is a bitmap font of Latin-1 characters in one size."""
    return ImageFont.load_default(size=size)


def runs(text: str, size: int) -> Iterator[tuple[str, Font]]:
    """Split text into runs of one font each. Characters that no font covers become question marks."""
    for path, group in groupby(map(_drawable, text), key=lambda pair: pair[1]):
        run = "".join(character for character, _ in group)
        yield run, (_load(path, size) if path else default_font(size))


def uncovered(text: str) -> list[str]:
    """Return the distinct characters of a text that no installed font covers, in their order."""
    return [character for character in dict.fromkeys(text) if _drawable(character)[0] != character]


def warn_uncovered(text: str) -> None:
    """Say once for each script on standard error that its characters are shown as question marks."""
    scripts = {_script(character) for character in uncovered(text)} - _warned
    if scripts:
        _warned.update(scripts)
        names = ", ".join(sorted(scripts))
        console.log(
            f"captions: no installed font covers {names}: shown as '{REPLACEMENT}'; "
            "install one that does, such as Noto Sans (Debian and Ubuntu: fonts-noto-core, fonts-noto-cjk)"
        )


_warned: set[str] = set()


def _script(character: str) -> str:
    """Return the script of a character as its Unicode name begins, such as CJK, HANGUL or THAI."""
    if unicodedata.category(character) == "So":
        return "emoji and symbols"
    return unicodedata.name(character, "unknown characters").split()[0]


@functools.cache
def _drawable(character: str) -> tuple[str, Path | str]:
    """Return a character, or what is shown in its place, and its font: a file, or "" for the default font."""
    path = _font_path(character)
    if path is not None:
        return character, path
    return REPLACEMENT, ""


@functools.cache
def _font_path(character: str) -> Path | str | None:
    """Return the font file of a character, "" for the default font, or None where no font has it."""
    if character.isspace() or _covers(_default_coverage(), ord(character)):
        return ""
    if "\ud800" <= character <= "\udfff" or not isinstance(default_font(11), ImageFont.FreeTypeFont):
        return None
    return next((path for path in _installed() if _covers(_coverage(path), ord(character))), None)


@functools.cache
def _load(path: Path, size: int) -> Font:
    return ImageFont.truetype(str(path), size)


@functools.cache
def _default_coverage() -> tuple[list[int], list[int]]:
    font = default_font(11)
    if not isinstance(font, ImageFont.FreeTypeFont):
        return [0x20, 0xA0], [0x7E, 0xFF]
    content = getattr(font, "font_bytes", None)
    return _read_coverage(io.BytesIO(content)) if content else ([0x20], [0x7E])


@functools.cache
def _coverage(path: Path) -> tuple[list[int], list[int]]:
    try:
        with open(path, "rb") as file:
            return _read_coverage(file)
    except (OSError, ValueError, struct.error, IndexError):  # a broken font covers nothing
        return [], []


def _covers(coverage: tuple[list[int], list[int]], code: int) -> bool:
    starts, ends = coverage
    i = bisect_right(starts, code) - 1
    return i >= 0 and code <= ends[i]


@functools.cache
def _installed() -> tuple[Path, ...]:
    """Return the installed fonts, upright sans-serif fonts of normal weight first."""
    home = Path.home()
    if sys.platform == "darwin":
        folders = [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    elif sys.platform == "win32":
        folders = [Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts"]
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
        folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), data / "fonts", home / ".fonts"]
    paths = [
        Path(folder, name)
        for top in folders
        for folder, _, names in os.walk(top)
        for name in names
        if name.lower().endswith(SUFFIXES)
    ]
    return tuple(sorted(paths, key=lambda path: (sum(style in path.name.lower() for style in SPECIAL_STYLES), path)))


def _read_coverage(file: BinaryIO) -> tuple[list[int], list[int]]:
    """Return the first and last code points of the ranges that a font maps to glyphs, sorted."""
    head = file.read(16)
    if head[:4] == b"ttcf":
        file.seek(struct.unpack(">I", head[12:16])[0])
    else:
        file.seek(0)
    _, count = struct.unpack(">IH", file.read(6))
    file.read(6)
    tables = {}
    for _ in range(count):
        tag, _, offset, length = struct.unpack(">4sIII", file.read(16))
        tables[tag] = offset, length
    if b"cmap" not in tables or not any(tag in tables for tag in OUTLINES):
        return [], []
    offset, length = tables[b"cmap"]
    file.seek(offset)
    table = file.read(min(length, MAX_TABLE))
    ranges: set[tuple[int, int]] = set()
    (subtables,) = struct.unpack(">H", table[2:4])
    for i in range(subtables):
        platform, encoding, start = struct.unpack(">HHI", table[4 + 8 * i : 12 + 8 * i])
        if platform == 0 or (platform == 3 and encoding in (1, 10)):  # Unicode
            ranges.update(_subtable(table[start:]))
    ordered = sorted(ranges)
    return [first for first, _ in ordered], [last for _, last in ordered]


def _subtable(table: bytes) -> Iterator[tuple[int, int]]:
    (kind,) = struct.unpack(">H", table[:2])
    if kind == 4:
        (double,) = struct.unpack(">H", table[6:8])
        ends = struct.unpack(f">{double // 2}H", table[14 : 14 + double])
        starts = struct.unpack(f">{double // 2}H", table[16 + double : 16 + 2 * double])
        yield from ((first, last) for first, last in zip(starts, ends) if first <= last < 0xFFFF)
    elif kind == 12:
        (groups,) = struct.unpack(">I", table[12:16])
        for i in range(groups):
            first, last, _ = struct.unpack(">III", table[16 + 12 * i : 28 + 12 * i])
            yield first, last
