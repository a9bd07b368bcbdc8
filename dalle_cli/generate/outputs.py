"""Image files, which are never overwritten by surprise, and results on standard output."""

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .. import distributed
from ..console import json_safe, print_text
from ..exits import DONE, PARTIAL, USAGE, WOULD_OVERWRITE, Failure
from ..files import make_folder, remove_temporary_files
from ..images import EXTENSIONS, save_png
from .metadata import MetadataError, Origin, chunks, read, whole
from .requests import PlannedImage

_RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d")  # names of devices on Windows
_NUMBERS = re.compile(r"\d{6}-\d+-")  # index and seed at the start of a file name


def slug(text: str, max_length: int = 40) -> str:
    """Return `text` as part of a file name: lower-case ASCII letters, digits and single hyphens, never empty."""
    # Long prompts are cut before they are normalized, which is slow.
    plain = unicodedata.normalize("NFKD", text[: 10 * max_length]).casefold().encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:max_length].rstrip("-")
    return f"the-{name}" if _RESERVED.fullmatch(name) else name or "image"


def file_name(item: PlannedImage) -> str:
    """Return `{index:06d}-{seed}-{slug}.png`, with the slug of the prompt, or of the input image without one."""
    text = item.request.prompt or Path(item.request.fields.get("image") or "").stem
    return f"{item.index:06d}-{item.seed}-{slug(text)}.png"


class Outputs:
    """The files of a run, all named and checked before any model is loaded.

    `todo`: the images to generate; `skipped`: results of those whose files are complete; the same in all processes,
    which wait for each other before the first file is written. Raises Failure: cannot be written (1), contradictory
    options (2), would overwrite or mix with another run (73).
    """

    def __init__(
        self,
        folder: str | Path,
        items: Iterable[PlannedImage],
        overwrite: bool = False,
        skip_existing: bool = False,
    ):
        if overwrite and skip_existing:
            raise Failure("--overwrite and --skip-existing contradict each other: give one", USAGE)
        self.folder = Path(folder)
        self.todo = list(items)
        self.skipped: list[dict[str, Any]] = []
        if self.folder.suffix.lower() in EXTENSIONS and not self.folder.is_dir():
            raise Failure(f"--out {folder}: --out is a folder for all images; give one, such as --out out", USAGE)
        make_folder(self.folder, "--out")
        present = set(os.listdir(self.folder))
        existing = [item for item in self.todo if file_name(item) in present]
        if skip_existing:
            done = [item for item in existing if whole(self.path(item))]
            self.skipped = [self._result(item, **self._recorded(item), skipped=True) for item in done]
            indices = {item.index for item in done}
            self.todo = [item for item in self.todo if item.index not in indices]
        elif not overwrite:
            self._refuse(existing, present)
        remove_temporary_files(self.folder, {file_name(item) for item in self.todo})
        distributed.barrier()

    def _refuse(self, existing: Sequence[PlannedImage], present: set[str]) -> None:
        """Raise Failure if files exist, or if the folder holds other prompts' images of the same indices and seeds."""
        if existing:
            more = f" and {len(existing) - 3} more" if len(existing) > 3 else ""
            verb = "exists" if len(existing) == 1 else "exist"
            raise Failure(
                f"{', '.join(str(self.path(item)) for item in existing[:3])}{more} already {verb}:"
                " use --skip-existing, --overwrite or another --out",
                WOULD_OVERWRITE,
            )
        numbers = {match[0]: name for name in sorted(present, reverse=True) if (match := _NUMBERS.match(name))}
        for item in self.todo:
            if name := numbers.get(f"{item.index:06d}-{item.seed}-"):
                raise Failure(
                    f"{self.folder} holds images of another run ({name}): use another --out,"
                    " or --skip-existing to add to them",
                    WOULD_OVERWRITE,
                )

    def path(self, item: PlannedImage) -> Path:
        """Return the file of an image."""
        return self.folder / file_name(item)

    def save(self, item: PlannedImage, image: Image.Image, origin: Origin, **details: Any) -> dict[str, Any]:
        """Write an image with its metadata, completely or not at all; returns its result, `details` added.

        Raises Failure if it cannot be written, as then the next one cannot be written either.
        """
        path = self.path(item)
        try:
            save_png(image, path, chunks(origin, item, image.size, json_safe(details)))
        except OSError as error:
            raise Failure(
                f"{path}: cannot be written: {error.strerror or error}; when that is fixed, "
                "continue with --skip-existing"
            ) from None
        return self._result(item, **details)

    def failed(self, item: PlannedImage, error: Exception | str) -> dict[str, Any]:
        """Return the result of an image that could not be generated."""
        message = " ".join(str(error).split()) or type(error).__name__
        result = self._result(item, error=message)
        del result["path"]
        return result

    def _recorded(self, item: PlannedImage) -> dict[str, Any]:
        """Return what the metadata of an existing file adds to its result: its sample index and its score."""
        try:
            record = read(self.path(item)).get("dalle", {})
        except MetadataError:
            return {}
        details = record.get("result")
        sample_index = record.get("sample_index", record.get("draw", item.sample_index))
        return {"sample_index": sample_index, **(details if isinstance(details, dict) else {})}

    def _result(self, item: PlannedImage, **details: Any) -> dict[str, Any]:
        result = {
            "index": item.index,
            "path": str(self.path(item)),
            "prompt": item.request.prompt,
            "seed": item.seed,
            "sample_index": item.sample_index,
            **details,
        }
        return {**result, **{key: value for key, value in item.request.passthrough.items() if key not in result}}


class Collected:
    """Results in memory, for code that uses those of a command."""

    def __init__(self):
        self.reported: list[dict[str, Any]] = []

    def report(self, result: dict[str, Any]) -> None:
        """Add a result."""
        self.reported.append(result)

    def finish(self) -> int:
        """Return the exit code, DONE or PARTIAL if an item failed, once all processes have written their files."""
        distributed.barrier()
        return PARTIAL if any("error" in result for result in self.reported) else DONE


class Results(Collected):
    """Results on standard output: one JSON line each as they come or, on a terminal, one table at the end.

    as_json: lines on a terminal too. columns: of the table; columns without any value are left out.
    """

    def __init__(
        self, as_json: bool = False, columns: Sequence[str] = ("index", "seed", "skipped", "score", "path", "prompt")
    ):
        if sys.stdout is None:
            raise Failure("standard output is closed: results cannot be printed")
        super().__init__()
        self.lines = as_json or not sys.stdout.isatty()
        self.columns = columns

    def report(self, result: dict[str, Any]) -> None:
        """Add a result, and print it as a line unless there will be a table. A closed pipe ends the program quietly."""
        super().report(result)
        if self.lines:
            print_text(json.dumps(json_safe(result)))  # in ASCII: the same in any locale, and safe on any terminal

    def finish(self) -> int:
        """Print the table, if there is one; returns the exit code, DONE or PARTIAL if an item failed."""
        if not self.lines and self.reported:
            print_text(table(self.reported, self.columns, shutil.get_terminal_size().columns))
        return super().finish()


def table(results: Sequence[dict[str, Any]], columns: Sequence[str], width: int) -> str:
    """Return results as aligned text, prompts cut to `width`; failed ones have their error in the last column."""
    *columns, last = [key for key in columns if any(result.get(key) is not None for result in results)] or ["error"]
    rows = [[*columns, last]]
    for result in results:
        tail = f"FAILED: {result['error']}" if "error" in result else _cell(last, result.get(last))
        rows.append([*(_cell(key, result.get(key)) for key in columns), tail])
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    max_tail = max(width - sum(widths) - 2 * len(widths), 20)
    lines = []
    for row in rows:
        cells = [
            cell.ljust(column_width) if key in ("path", "prompt") else cell.rjust(column_width)
            for key, cell, column_width in zip(columns, row, widths)
        ]
        long = last == "prompt" and len(row[-1]) > max_tail and not row[-1].startswith("FAILED: ")
        tail = row[-1][: max_tail - 1] + "…" if long else row[-1]
        lines.append("  ".join([*cells, tail]).rstrip())
    return "\n".join(lines)


def _cell(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    text = key if value is True else f"{value:.4g}" if isinstance(value, float) else str(value)
    return "".join(
        c if c.isprintable() else " " for c in text
    )  # a prompt must not send control characters to the terminal
