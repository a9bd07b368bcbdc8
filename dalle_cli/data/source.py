"""What a source of captioned pictures is, and how it is found on disk."""

import glob
import os
import random
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

MOST_FILES = 1_000_000  # that a brace range may stand for


class DataError(ValueError):
    """Data that cannot be used as a whole; the message is one line with the cause and the remedy."""


class BadSample(ValueError):
    """One sample that cannot be used. reason: `kind` or `kind: detail`, counted by kind; key: where to find it."""

    def __init__(self, reason: str, key: str):
        super().__init__(f"{key}: {reason}")
        self.reason = reason
        self.key = key

    def __reduce__(self):  # crosses from worker processes
        return BadSample, (self.reason, self.key)


class Source(Protocol):
    """Random access in blocks, which are what is read together: a shard, a row group, a whole folder.

    A source may also have `problems`, lines about what was found wrong while listing (missing or truncated shards),
    and `window`, the most blocks that may be mixed when keeping many at hand is costly.
    """

    blocks: list[int]  # samples in each

    def read(self, block: int, index: int, picture: bool = True) -> dict[str, Any]:
        """`image`: PIL picture or uint8 (H, W, 3); `text`: a caption, several, or "" for none; `key`: its name.

        picture: False leaves `image` None, for those who want captions alone. Raises BadSample.
        """
        ...


def find_files(path: str, suffixes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Files that `path` means: a file, a folder (searched for `suffixes`), a glob or a brace range.

    `{00000..00099}.tar` counts, with zeros kept; `{a,b}` lists. Returns the files and lines about holes in a brace
    range or in the numbering of the names. Raises DataError when there are none.
    """
    path = given(path)
    if re.search(r"\{[^{}]*(\.\.|,)[^{}]*\}", path) and not os.path.exists(path):
        wanted = list(islice(braces(path), MOST_FILES + 1))
        if len(wanted) > MOST_FILES:
            raise DataError(f"data.path: '{path}' means more than {MOST_FILES} files; name a folder or a glob")
        files = [name for name in wanted if os.path.isfile(name)]
        missing = [name for name in wanted if not os.path.isfile(name)]
    else:
        if os.path.isdir(path):
            files = [
                name for suffix in suffixes for name in glob.glob(f"{glob.escape(path)}/**/*{suffix}", recursive=True)
            ]
        else:
            files = [path] if os.path.exists(path) else glob.glob(path, recursive=True)
        files = sorted(name for name in set(files) if os.path.isfile(name))
        missing = _holes(files)
    if not files:
        raise DataError(f"data.path: no {' or '.join(suffixes)} files at '{path}'{relative_note(path)}")
    if not missing:
        return files, []
    names = ", ".join(os.path.basename(name) for name in missing[:5])
    more = ", ..." if len(missing) > 5 else ""
    return files, [f"{len(missing)} of {len(files) + len(missing)} files are missing: {names}{more}"]


def given(path: str) -> str:
    """`path` with ~ expanded. Raises DataError when it is empty."""
    if not path.strip():
        raise DataError("data.path is not set: say data.path=WHERE or set DALLE_DATA; data.type=scenes needs neither")
    return os.path.expanduser(path)


def relative_note(path: str) -> str:
    """Return what a relative path is relative to, for messages; "" for an absolute one."""
    return "" if os.path.isabs(path) else f" (relative to {os.getcwd()})"


def braces(pattern: str) -> Iterator[str]:
    """Every name that a pattern with `{first..last}` and `{a,b}` stands for."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        yield pattern
        return
    numbers = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", found[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        choices = (str(number).zfill(len(numbers[1])) for number in range(first, last + 1))
    else:
        choices = iter(found[1].split(","))
    for choice in choices:
        for rest in braces(pattern[found.end() :]):
            yield pattern[: found.start()] + choice + rest


def caption_text(data: bytes) -> str:
    """Text of a caption file: UTF-8, with or without a byte-order mark; what is none becomes U+FFFD."""
    return data.decode("utf-8-sig", "replace").strip()


def captions(value: Any) -> str | list[str]:
    """A caption, or several, from a field of JSON or a column of a table; "" for none."""
    if isinstance(value, list | tuple):
        return [text for text in (str(item).strip() for item in value if item is not None) if text]
    return "" if value is None else str(value).strip()


def choose_caption(captions: str | list[str], choice: str, rng: random.Random | None = None) -> str:
    """Return the caption that is trained on, of one or several; "" for none.

    choice: random (chosen by `rng`; without one, the first), first, or join (all, separated by spaces).
    """
    if isinstance(captions, str):
        return captions
    if not captions:
        return ""
    if choice == "join":
        return " ".join(captions)
    return rng.choice(captions) if rng and choice == "random" else captions[0]


def all_captions(captions: str | list[str], choice: str) -> list[str]:
    """Return every caption that training may see with this `choice`, without empty ones."""
    several = [captions] if isinstance(captions, str) else captions
    trained = several if choice == "random" else [choose_caption(several, choice)]
    return [text for text in trained if text.strip()]


def _holes(files: list[str]) -> list[str]:
    """Names missing from files that are numbered: 00000.tar, 00002.tar."""
    names = [Path(name) for name in files]
    if len(names) < 2 or not all(name.stem.isascii() and name.stem.isdigit() for name in names):
        return []
    present = {(name.parent, int(name.stem)) for name in names}
    if len({name.parent for name in names}) > 1:
        return []  # numbered anew in each folder, or on through them: not to be known
    numbers = [number for _, number in present]
    if max(numbers) - min(numbers) > 10 * len(numbers):
        return []  # names that happen to be numbers
    first = names[0]
    absent = sorted(set(range(min(numbers), max(numbers))) - set(numbers))
    return [str(first.with_name(str(number).zfill(len(first.stem)) + first.suffix)) for number in absent]
