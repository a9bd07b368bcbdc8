"""Tables of images and captions: CSV, TSV, JSON lines, Parquet, with random access; never held in memory as a whole."""

import contextlib
import csv
import functools
import importlib
import json
import os
from array import array
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import numpy as np

from ..images import BadImage, decode
from ..registry import suggest
from . import sources
from .source import BadSample, DataError, captions, find_files

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl", ".parquet")
IMAGE_COLUMNS = ("image", "file_name", "filepath", "image_path", "path", "jpg", "png", "webp")
CAPTION_COLUMNS = ("text", "caption", "title", "txt", "prompt")
GROUP_BYTES = 256 << 20  # of row groups that are mixed at a time, and so held in memory by each worker


class Rows(Protocol):
    columns: list[str]
    blocks: list[int]  # rows in each
    window: int | None  # as of a source

    def row(self, block: int, index: int, columns: tuple[str, ...]) -> dict[str, Any]: ...


@sources.register("table")
class Table:
    """Images and captions named by the rows of tables.

    path: a table (.csv, .tsv, .jsonl, .parquet; CSV and TSV with a header row), a folder of them, a glob or a brace
    range. image_column: the column of image paths, relative to the table, or of encoded images (Parquet: bytes, or a
    struct of bytes and path); by default found by its usual name. caption_column: the column of captions; by default
    found by its usual name.
    """

    def __init__(
        self,
        path: str = "",
        image_column: str | None = None,
        caption_column: str | None = None,
        max_pixels: int = 50_000_000,
        at_least: int | None = None,
    ):
        self.files, self.problems = find_files(path, SUFFIXES)
        self.max_pixels, self.at_least = max_pixels, at_least
        self._tables: list[tuple[Rows, tuple[str, ...]]] = []  # with the columns of image, caption and key
        self._places: list[tuple[int, int]] = []  # of each block: table, block within it
        self.blocks: list[int] = []
        for number, file in enumerate(self.files):
            rows = _open(file)
            image = _column(file, rows.columns, "image", image_column, IMAGE_COLUMNS)
            text = _column(file, rows.columns, "caption", caption_column, CAPTION_COLUMNS)
            self._tables.append((rows, (image, text, "key")))
            self._places += [(number, block) for block in range(len(rows.blocks))]
            self.blocks += rows.blocks
        self.window = min((rows.window for rows, _ in self._tables if rows.window), default=None)
        if not sum(self.blocks):
            raise DataError(f"data.path: no rows in '{path}'")

    def read(self, block: int, index: int, with_image: bool = True) -> dict:
        table, inner = self._places[block]
        rows, columns = self._tables[table]
        file = self.files[table]
        key = f"{os.path.basename(file)}/{inner}/{index}"
        try:
            image, text, name = map(rows.row(inner, index, columns).get, columns)
            if isinstance(image, dict):  # Hugging Face: the bytes, or a path, or the bytes and where they came from
                key, image = str(image.get("path") or key), image.get("bytes") or image.get("path")
            if isinstance(image, str) and image.strip():
                key, image = image, os.path.join(os.path.dirname(file), image)
            elif not isinstance(image, bytes):
                raise BadSample("no image", key)
            decoded = decode(image, self.max_pixels, self.at_least) if with_image else None
            return {"image": decoded, "text": captions(text), "key": str(name or key)}
        except BadSample:
            raise
        except BadImage as error:
            raise BadSample(str(error), key) from None
        except (OSError, ValueError, csv.Error) as error:
            raise BadSample(f"row cannot be read: {error}", key) from None


class TextRows:
    """Rows of a CSV, TSV or JSON-lines file, by the bytes at which they start: 8 bytes of memory a row."""

    window: int | None = None

    def __init__(self, file: str):
        self._file = file
        self._delimiter = DELIMITERS.get(os.path.splitext(file)[1].lower())
        self.columns: list[str] = []
        starts = array("q")
        with open(file, "rb") as stream:
            try:
                for start, names in self._csv(stream) if self._delimiter else _json_lines(stream):
                    if names and (not self._delimiter or not starts):
                        self.columns += [name for name in names if name not in self.columns]
                    starts.append(start)
            except csv.Error as error:
                raise DataError(
                    f"{file}: row {len(starts) + 1} cannot be read ({error}): is it text, and every quote closed?"
                ) from None
        self._starts = np.array(starts, np.int64)[1 if self._delimiter else 0 :]  # less the header
        self.blocks = [len(self._starts)]

    def row(self, block: int, index: int, columns: tuple[str, ...]) -> dict[str, Any]:
        with open(self._file, "rb") as stream:
            stream.seek(int(self._starts[index]))
            if not self._delimiter:
                return _fields(stream.readline())
            for _, values in self._csv(stream):
                return dict(zip(self.columns, values))
        raise ValueError("the table has become shorter")

    def _csv(self, stream: BinaryIO) -> Iterator[tuple[int, list[str]]]:
        """(byte at which it starts, cells) of each row that is not empty; cells may hold line breaks."""
        assert self._delimiter
        position = stream.tell()

        def lines() -> Iterator[str]:
            nonlocal position
            for line in stream:
                encoding = "utf-8" if position else "utf-8-sig"
                position += len(line)
                yield line.decode(encoding, "replace")

        reader = csv.reader(lines(), delimiter=self._delimiter)
        start = position
        for cells in reader:
            if cells:
                yield start, cells
            start = position


class ParquetRows:
    """Rows of a Parquet file; a block is a row group, decoded as a whole and kept while it is in use."""

    def __init__(self, file: str):
        self._file = file
        try:
            footer = _pyarrow().ParquetFile(file)
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{file}: not a Parquet file: {str(error).splitlines()[0]}") from None
        self.columns: list[str] = footer.schema_arrow.names
        groups = [footer.metadata.row_group(number) for number in range(footer.metadata.num_row_groups)]
        self.blocks = [group.num_rows for group in groups]
        largest = max((group.total_byte_size for group in groups), default=0)
        self.window: int | None = max(2, min(32, GROUP_BYTES // max(largest, 1)))
        self.__setstate__(self.__dict__)

    def row(self, block: int, index: int, columns: tuple[str, ...]) -> dict[str, Any]:
        return {name: column[index].as_py() for name, column in self._group(block, columns).items()}

    def _read(self, block: int, columns: tuple[str, ...]) -> dict[str, Any]:
        # Without threads: a worker process may have been forked from one that used them.
        names = [name for name in columns if name in self.columns]
        table = _pyarrow().ParquetFile(self._file).read_row_group(block, columns=names, use_threads=False)
        return {name: table.column(name) for name in names}

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_group"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._group = functools.lru_cache(maxsize=(self.window or 0) + 1)(self._read)


def _open(file: str) -> Rows:
    suffix = os.path.splitext(file)[1].lower()
    if suffix not in SUFFIXES:
        raise DataError(f"data.path: '{file}' is not a table; use one of {', '.join(SUFFIXES)}")
    return ParquetRows(file) if suffix == ".parquet" else TextRows(file)


def _column(file: str, columns: list[str], role: str, name: str | None, usual: tuple[str, ...]) -> str:
    if not columns:
        raise DataError(f"{file}: no columns; is it a table of the kind that its name says?")
    if name is None:
        name = next((column for column in usual if column in columns), None)
        if name is None:
            raise DataError(
                f"{file}: which column is the {role}? Say data.{role}_column=; its columns: {', '.join(columns)}"
            )
    elif name not in columns:
        raise DataError(f"data.{role}_column: {file} has no column '{name}'{suggest(name, columns)}")
    return name


def _json_lines(stream: BinaryIO) -> Iterator[tuple[int, list[str]]]:
    """(byte at which it starts, names of its fields) of each line; only the first hundred are parsed for names."""
    position, parsed = 0, 0
    for line in stream:
        if line.strip():
            names: list[str] = []
            if parsed < 100:
                with contextlib.suppress(ValueError):
                    names = list(_fields(line))
            parsed += 1
            yield position, names
        position += len(line)


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line.decode("utf-8-sig", "replace"))
    except RecursionError:
        fields = None
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    return fields


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise DataError("Parquet tables need pyarrow: pip install 'dalle[parquet]'") from None
