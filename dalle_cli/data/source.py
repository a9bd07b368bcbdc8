"""The interface of a source of captioned images, and how its files are located."""

import glob
import os
import random
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

MAX_FILES = 1_000_000  # that a brace range may stand for


class DataError(ValueError):
    """Data that cannot be used; the message is one line with the cause and the remedy."""


class BadSample(ValueError):
    """One sample that cannot be used. reason: `kind` or `kind: detail`, counted by kind. key: names the sample."""

    def __init__(self, reason: str, key: str):
        super().__init__(f"{key}: {reason}")
        self.reason = reason
        self.key = key

    def __reduce__(self):  # crosses from worker processes
        return BadSample, (self.reason, self.key)


class Source(Protocol):
    """Random access in blocks of samples that are read together: a shard, a row group, a whole folder.

    A source may also have `problems`, one line about each problem with its files (missing or truncated shards), and
    `window`, the maximum number of blocks that may be mixed where it is costly to have many open.
    """

    blocks: list[int]  # samples in each

    def read(self, block: int, index: int, with_image: bool = True) -> dict[str, Any]:
        """Return `image`, of PIL or uint8 (H, W, 3); `text`, a caption, several, or "" for none; `key`, its name.

        with_image: False leaves `image` None, which is faster for captions only. Raises BadSample.
        """
        ...


def find_files(path: str, suffixes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the files of `path`: a file, a folder (searched for `suffixes`), a glob or a brace range.

    `{00000..00099}.tar` counts, with leading zeros; `{a,b}` lists. Also returns one line about files that are missing
    from a brace range or from the numbering of the names. Raises DataError when there are no files.
    """
    path = expand(path)
    if re.search(r"\{[^{}]*(\.\.|,)[^{}]*\}", path) and not os.path.exists(path):
        wanted = list(islice(braces(path), MAX_FILES + 1))
        if len(wanted) > MAX_FILES:
            raise DataError(f"data.path: '{path}' means more than {MAX_FILES} files; name a folder or a glob")
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
        missing = _missing_numbers(files)
    if not files:
        raise DataError(f"data.path: no {' or '.join(suffixes)} files at '{path}'{relative_note(path)}")
    if not missing:
        return files, []
    names = ", ".join(os.path.basename(name) for name in missing[:5])
    more = ", ..." if len(missing) > 5 else ""
    return files, [f"{len(missing)} of {len(files) + len(missing)} files are missing: {names}{more}"]


def expand(path: str) -> str:
    """Return `path` with ~ expanded. Raises DataError when it is empty."""
    if not path.strip():
        raise DataError("data.path is not set: add data.path=PATH or set DALLE_DATA; data.type=scenes needs neither")
    return os.path.expanduser(path)


def relative_note(path: str) -> str:
    """Return what a relative path is relative to, for messages; "" for an absolute one."""
    return "" if os.path.isabs(path) else f" (relative to {os.getcwd()})"


def braces(pattern: str) -> Iterator[str]:
    """Yield every name that a pattern with `{first..last}` and `{a,b}` means."""
    group = re.search(r"\{([^{}]*)\}", pattern)
    if not group:
        yield pattern
        return
    numbers = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", group[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        choices = (str(number).zfill(len(numbers[1])) for number in range(first, last + 1))
    else:
        choices = iter(group[1].split(","))
    for choice in choices:
        for rest in braces(pattern[group.end() :]):
            yield pattern[: group.start()] + choice + rest


def caption_text(data: bytes) -> str:
    """Return the text of a caption file: UTF-8, with or without a byte-order mark; invalid bytes become U+FFFD."""
    return data.decode("utf-8-sig", "replace").strip()


def captions(value: Any) -> str | list[str]:
    """Return a caption, or several, from a field of JSON or a column of a table; "" for none."""
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


def _missing_numbers(files: list[str]) -> list[str]:
    """Return the names missing from numbered files, such as 00001.tar between 00000.tar and 00002.tar."""
    names = [Path(name) for name in files]
    if len(names) < 2 or not all(name.stem.isascii() and name.stem.isdigit() for name in names):
        return []
    present = {(name.parent, int(name.stem)) for name in names}
    if len({name.parent for name in names}) > 1:
        return []  # numbered per folder or throughout: unknown
    numbers = [number for _, number in present]
    if max(numbers) - min(numbers) > 10 * len(numbers):
        return []  # names that happen to be numbers
    first = names[0]
    absent = sorted(set(range(min(numbers), max(numbers))) - set(numbers))
    return [str(first.with_name(str(number).zfill(len(first.stem)) + first.suffix)) for number in absent]
