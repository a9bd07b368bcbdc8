"""CLIP embeddings that `dalle embed` (generate/embed.py) computed once, to train from.

A folder of `embeddings-00000.safetensors`, each a block: `image` and `caption` float16 (n, e), CLIP's features before
normalization; `text` and `key` as UTF-8 bytes of a JSON list; optionally `pictures`, the images, uint8 (n, S, S, 3).
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from . import sources
from .source import BadSample, DataError, find_files


class Block(NamedTuple):
    rows: Any  # of `image`, each read when it is asked for
    images: Any  # the same, or None
    text: list[str]
    key: list[str]


@sources.register("embeddings")
class Embeddings:
    """Precomputed CLIP embeddings, as `dalle embed` writes them: samples with `embedding` (e,), and images if stored.

    path: the folder. images: False skips stored images, which a prior does not need.
    """

    def __init__(self, path: str, images: bool = True):
        self.files, self.problems = find_files(path, (".safetensors",))
        self.images = images
        shapes = [_shape(file) for file in self.files]
        self.blocks = [shape[0] for shape in shapes]
        if len({shape[1] for shape in shapes}) > 1:
            raise DataError(f"data.path: {path} holds embeddings of several widths; use those of one CLIP")
        self.window = 8

    def read(self, block: int, index: int, with_image: bool = True) -> dict:
        try:
            rows, images, text, key = _open(self.files[block])
            if index >= min(len(text), len(key)):
                raise BadSample("fewer captions than embeddings", f"{Path(self.files[block]).name}/{index}")
            sample = {"image": None, "text": text[index], "key": key[index], "embedding": rows[index : index + 1][0]}
            if with_image and self.images and images is not None:
                sample["image"] = images[index : index + 1][0]
        except (SafetensorError, OSError) as error:
            raise BadSample(f"cannot be read: {error}", f"{Path(self.files[block]).name}/{index}") from None
        return sample


def _shape(file: str) -> tuple[int, int]:
    try:
        with safe_open(file, framework="np") as tensors:
            shape = tensors.get_slice("image").get_shape()
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{file}: not a file of embeddings: {str(error).splitlines()[0]}") from None
    if len(shape) != 2:
        raise DataError(f"{file}: not a file of embeddings: they have the shape {shape}")
    return shape[0], shape[1]


@lru_cache(maxsize=16)
def _open(file: str) -> Block:
    try:
        tensors: Any = safe_open(file, framework="np")  # maps the file; a row is read when it is used
        text, key = (json.loads(tensors.get_tensor(name).tobytes()) for name in ("text", "key"))
        images = tensors.get_slice("pictures") if "pictures" in tensors.keys() else None  # noqa: SIM118
        return Block(tensors.get_slice("image"), images, list(map(str, text)), list(map(str, key)))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged: {str(error).splitlines()[0]}") from None
