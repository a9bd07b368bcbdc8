"""Shards: tar files of images and captions, as img2dataset and WebDataset write them, with random access.

A sample is the members with the same key: the member's name up to the first dot of its last part. Members are located
by their headers and read in place; nothing is written to disk, so a member's name can do no harm.
"""

import functools
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..images import EXTENSIONS, BadImage, decode
from . import sources
from .source import BadSample, DataError, caption_text, captions, find_files
from .tar import BLOCK, Member, TarError, ends_whole, members

LONGEST_TEXT = 1 << 20  # bytes of a caption or a JSON member
ABSENT = -1


class Index(NamedTuple):
    headers: NDArray[np.int64]  # (samples, 2): bytes at which image and caption start, or ABSENT
    problems: list[str]


@sources.register("shards")
class Shards:
    """Images and captions in tar files.

    path: a tar, a folder, a glob or a brace range (`data/{00000..00099}.tar`); numbers may be missing. caption_column:
    "txt" reads the `.txt` members; any other name reads that field of the `.json` members (a list: several captions).

    Counts come from img2dataset's `_stats.json` when the shard looks whole, else from the headers.
    """

    def __init__(
        self, path: str = "", caption_column: str = "txt", max_pixels: int = 50_000_000, at_least: int | None = None
    ):
        self.files, self.problems = find_files(path, (".tar",))
        self.caption, self.max_pixels, self.at_least = caption_column, max_pixels, at_least
        with ThreadPoolExecutor(16) as pool:
            counted = list(pool.map(lambda file: _count(file, caption_column), self.files))
        self.blocks = [count for count, _ in counted]
        self.problems += [problem for _, problems in counted for problem in problems]
        if not sum(self.blocks):
            raise DataError(self.problems[0] if self.problems else f"data.path: no samples in {self.files[0]}")

    def read(self, block: int, index: int, with_image: bool = True) -> dict:
        file = self.files[block]
        name = f"{os.path.basename(file)}/{index}"
        try:
            headers = _index(file, self.caption).headers
            if index >= len(headers):
                raise BadSample("shard shorter than its _stats.json says", name)
            with open(file, "rb", buffering=0) as shard:
                present = [None if at == ABSENT else next(members(shard, int(at))) for at in headers[index]]
                image, text = present
                key = _split(next(member.name for member in present if member))[0]
                name = f"{os.path.basename(file)}/{key}"
                if not image:
                    raise BadSample("no image", name)
                if image.size > 8 * self.max_pixels:  # more than uncompressed pixels of 16 bits
                    raise BadSample("too many bytes", name)
                if text and text.size > LONGEST_TEXT:
                    raise BadSample("caption too long", name)
                data = _data(shard, image) if with_image else b""
                words = self._words(_data(shard, text)) if text else ""
            decoded = decode(data, self.max_pixels, self.at_least) if with_image else None
            return {"image": decoded, "text": words, "key": key}
        except BadImage as error:
            raise BadSample(str(error), name) from None
        except (OSError, TarError, StopIteration) as error:
            raise BadSample(f"shard cannot be read: {error}", name) from None

    def _words(self, data: bytes) -> str | list[str]:
        if self.caption == "txt":
            return " ".join(caption_text(data).split())  # a web page's line breaks are not several captions
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError):
            return ""
        return captions(fields.get(self.caption)) if isinstance(fields, dict) else ""


def _count(file: str, caption: str) -> tuple[int, list[str]]:
    """Samples of a shard, and what is wrong with it."""
    stats = Path(file).with_name(f"{Path(file).stem}_stats.json")
    try:
        successes = json.loads(stats.read_bytes())["successes"]
        with open(file, "rb", buffering=0) as shard:
            limit = os.fstat(shard.fileno()).st_size // (2 * BLOCK)  # an image takes at least a header and a block
            if isinstance(successes, int) and 0 < successes <= limit and ends_whole(shard):
                return successes, []
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # no statistics: count
    headers, problems = _index(file, caption)
    return len(headers), problems


@functools.lru_cache(maxsize=64)  # two windows of the order
def _index(file: str, caption: str) -> Index:
    """Where the samples of a shard are, by one pass over its headers, in the order of their first members."""
    name = os.path.basename(file)
    wanted = "txt" if caption == "txt" else "json"
    samples: dict[str, list[int]] = {}
    seen: set[tuple[str, str]] = set()
    repeated: list[str] = []
    special: list[str] = []
    problems: list[str] = []
    key = ""
    try:
        with open(file, "rb", buffering=0) as shard:
            for member in members(shard):
                if not member.regular:
                    special += [member.name] if not member.name.endswith("/") else []
                    continue
                key, extension = _split(member.name)
                column = 0 if f".{extension}" in EXTENSIONS else 1 if extension == wanted else None
                if column is None or not key:
                    continue
                if (key, extension) in seen:
                    repeated.append(member.name)
                    continue
                seen.add((key, extension))
                sample = samples.setdefault(key, [ABSENT, ABSENT])
                if sample[column] == ABSENT:
                    sample[column] = member.header
    except (TarError, OSError) as error:
        if ABSENT in samples.get(key, ()):
            del samples[key]  # its other half was cut off
        used = f"the {len(samples)} whole samples before it are" if samples else "nothing in it is"
        problems.append(f"{name}: {_explain(file, error)}; {used} used")
    problems += _few(name, "members have the key and extension of an earlier one, which counts", repeated)
    problems += _few(name, "members are links or devices and are ignored", special)
    return Index(np.array(list(samples.values()), np.int64).reshape(-1, 2), problems)


def _split(name: str) -> tuple[str, str]:
    """(key, extension in lower case); no key for hidden files and names without a dot."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return (folder + slash + stem if stem and extension else ""), extension.lower()


def _data(shard, member: Member) -> bytes:
    shard.seek(member.offset)
    data = shard.read(member.size)
    if len(data) < member.size:
        raise TarError(f"cut short at byte {member.offset + len(data)}")
    return data


def _explain(file: str, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    with open(file, "rb") as shard:
        packed = shard.read(2) == b"\x1f\x8b"
    return "is compressed, unpack it with `gunzip`" if packed else str(error)


def _few(shard: str, what: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return [f"{shard}: {len(names)} {what}: {shown}"] if names else []
