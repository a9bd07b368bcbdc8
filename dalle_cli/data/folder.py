"""A folder of images, with captions in text files of the same name or in one metadata file."""

import os

from ..images import EXTENSIONS, BadImage, decode
from . import sources
from .source import BadSample, DataError, caption_text, expand, relative_note
from .table import Table

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.tsv", "metadata.parquet")


@sources.register("folder")
class Folder:
    """Images in nested folders; the key is the relative path.

    path: the folder. image_column, caption_column: columns of the `metadata.jsonl` or `metadata.csv` at the top, by
    default `file_name` and `text`, as in Hugging Face's image folders.

    Without such a file, captions are the lines of `a/b.txt` for `a/b.jpg`. Names that start with a dot are skipped.
    """

    def __init__(
        self,
        path: str = "",
        image_column: str | None = None,
        caption_column: str | None = None,
        max_pixels: int = 50_000_000,
        at_least: int | None = None,
    ):
        self.path = expand(path)
        self.max_pixels, self.at_least = max_pixels, at_least
        if not os.path.isdir(self.path):
            hint = "; for files, data.type=shards or table" if os.path.isfile(self.path) else ""
            raise DataError(f"data.path: no folder '{path}'{relative_note(self.path)}{hint}")
        metadata_files = [name for name in METADATA if os.path.isfile(os.path.join(self.path, name))]
        self._table = None
        if metadata_files:
            metadata = os.path.join(self.path, metadata_files[0])
            self._table = Table(metadata, image_column or "file_name", caption_column or "text", max_pixels, at_least)
            self.blocks, self.window = self._table.blocks, self._table.window
            return
        self._keys = sorted(_images(self.path))
        self.blocks, self.window = [len(self._keys)], None
        if not self._keys:
            tars = any(name.endswith(".tar") for name in os.listdir(self.path))
            hint = "; for its .tar files, data.type=shards" if tars else ""
            raise DataError(
                f"data.path: no images (.jpg, .png, .webp, ...) in '{path}'{relative_note(self.path)}{hint}"
            )

    def read(self, block: int, index: int, with_image: bool = True) -> dict:
        if self._table:
            return self._table.read(block, index, with_image)
        key = self._keys[index]
        file = os.path.join(self.path, key)
        try:
            with open(f"{os.path.splitext(file)[0]}.txt", "rb") as stream:
                lines = caption_text(stream.read()).splitlines()
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise BadSample(f"caption cannot be read: {error.strerror}", key) from None
        try:
            image = decode(file, self.max_pixels, self.at_least) if with_image else None
        except BadImage as error:
            raise BadSample(str(error), key) from None
        return {"image": image, "text": [line for line in map(str.strip, lines) if line], "key": key}


def _images(top: str) -> list[str]:
    """Return the relative paths of the images below `top`; links to folders are followed, each folder once."""
    paths: list[str] = []
    visited: set[str] = set()
    for folder, inner, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            inner.clear()
            continue
        visited.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        below = os.path.relpath(folder, top)
        paths += [
            os.path.normpath(os.path.join(below, name)).replace(os.sep, "/")
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS
        ]
    return paths
