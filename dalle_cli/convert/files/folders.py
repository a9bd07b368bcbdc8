"""Which files of a folder are its weights: one file, or shards named by an index, as Hugging Face's libraries lay them.

Names alone decide, so that the same is chosen of a folder here and of a repository that is yet to be fetched.
"""

import json
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from ...exits import BAD_INPUT, Failure
from ..layout import ConvertError

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".th", ".safetensors")
INDEX = ".index.json"
LARGEST_INDEX = 64 << 20  # bytes
# Of a folder that holds the same weights several times, the first of these, or of their indices.
PREFERRED = (
    *("model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.bin"),
    *("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
)
SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)")


def weights(names: Iterable[str], beside: Iterable[str] = ()) -> list[str]:
    """Of a folder's file names, those that may be what is meant; one alone where there is no doubt.

    An index stands for its shards. beside: patterns of files that go with others. Raises Failure for shards without
    their index.
    """
    found = sorted(name for name in names if name.endswith((*SUFFIXES, INDEX)))
    found = [name for name in found if not any(fnmatch(name, pattern) for pattern in beside)]
    indices = {name.removesuffix(INDEX) for name in found if name.endswith(INDEX)}
    kept = []
    for name in found:
        shard = SHARD.fullmatch(name)
        if shard is None:
            kept.append(name)
        elif f"{shard[1]}{shard[3]}" not in indices:
            index = f"{shard[1]}{shard[3]}{INDEX}"
            raise Failure(
                f"{name}: one of {int(shard[2])} shards, and {index}, which names them, is missing", BAD_INPUT
            )
    for name in PREFERRED:
        for choice in (name, name + INDEX):
            if choice in kept:
                return [choice]
    return kept


def choose(folder: Path, beside: Iterable[str] = ()) -> Path:
    """The file of weights, or the index, in a folder. Raises Failure when there is none, or no telling which."""
    found = weights((file.name for file in folder.iterdir() if file.is_file()), beside)
    if not found:
        raise Failure(f"{folder}: no weights in this folder ({', '.join(SUFFIXES)})", BAD_INPUT)
    if len(found) > 1:
        raise Failure(f"{folder}: several files of weights; name one of {', '.join(found[:6])}", BAD_INPUT)
    return folder / found[0]


def shards(index: Path, there: bool = True) -> tuple[list[Path], set[str]]:
    """The files that an index names, and the keys that they hold. there: they must be.

    Raises ConvertError, Failure.
    """
    try:
        if index.stat().st_size > LARGEST_INDEX:
            raise ValueError
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(places.values()))
        if not names or any(name != Path(name).name for name in names):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConvertError(f"{index}: not an index of shards") from None
    files = [index.parent / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if there and missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        told = ", ".join(missing[:5])
        raise Failure(f"{index}: {len(missing)} of {len(files)} shards are missing: {told}{more}", BAD_INPUT)
    return files, set(places)
