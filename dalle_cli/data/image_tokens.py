"""Image tokens that a dVAE computed once, so that it need not run at every step (see training/image_tokens.py).

A folder of `codes-00000.safetensors`, each a block: `codes`, the image tokens, uint16 (n, h, w), and `text` and `key`,
UTF-8 bytes of a JSON list.
"""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from . import sources
from .source import BadSample, DataError, find_files


@sources.register("image-tokens")
class ImageTokens:
    """Precomputed image tokens, (h, w), instead of images.

    path: the folder.
    """

    def __init__(self, path: str):
        self.files, self.problems = find_files(path, (".safetensors",))
        self.blocks = [self._count(file) for file in self.files]
        self.window = 8

    def read(self, block: int, index: int, with_image: bool = True) -> dict:
        tokens, text, key = _load(self.files[block])
        if index >= len(text):
            raise BadSample("fewer captions than images", f"{Path(self.files[block]).name}/{index}")
        return {"image_tokens": tokens[index] if with_image else None, "text": text[index], "key": key[index]}

    def _count(self, file: str) -> int:
        try:
            with safe_open(file, framework="np") as tensors:
                shape = tensors.get_slice("codes").get_shape()
        except (SafetensorError, OSError, ValueError) as error:
            raise DataError(f"{file}: not a file of image tokens: {str(error).splitlines()[0]}") from None
        if len(shape) != 3:
            raise DataError(f"{file}: not a file of image tokens: their shape is {shape}")
        return shape[0]


@lru_cache(maxsize=16)
def _load(file: str) -> tuple[np.ndarray, list[str], list[str]]:
    try:
        tensors = load_file(file)
        text, key = (json.loads(tensors[name].tobytes()) for name in ("text", "key"))
        return tensors["codes"], [str(caption) for caption in text], [str(name) for name in key]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged: {str(error).splitlines()[0]}") from None
