"""Choose the weights in a folder: one file, or shards named by an index, as Hugging Face's libraries save them.

Names decide, so that the same files are chosen from a folder and from a repository that is not downloaded yet.
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
MAX_INDEX = 64 << 20  # bytes
# Of a folder that holds the same weights several times, the first of these, or its index.
PREFERRED = (
    *("model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.bin"),
    *("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
)
SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)")


def weight_files(names: Iterable[str], side_files: Iterable[str] = ()) -> list[str]:
    """Return those of a folder's file names that may hold its weights, only one where the choice is clear.

    An index stands for its shards. side_files: patterns of files that go with others. Raises Failure for shards without
    their index.
    """
    matches = sorted(name for name in names if name.endswith((*SUFFIXES, INDEX)))
    matches = [name for name in matches if not any(fnmatch(name, pattern) for pattern in side_files)]
    indices = {name.removesuffix(INDEX) for name in matches if name.endswith(INDEX)}
    chosen = []
    for name in matches:
        shard = SHARD.fullmatch(name)
        if shard is None:
            chosen.append(name)
        elif f"{shard[1]}{shard[3]}" not in indices:
            index = f"{shard[1]}{shard[3]}{INDEX}"
            raise Failure(f"{name}: one of {int(shard[2])} shards, but their index {index} is missing", BAD_INPUT)
    for name in PREFERRED:
        for choice in (name, name + INDEX):
            if choice in chosen:
                return [choice]
    return chosen


def choose(folder: Path, side_files: Iterable[str] = ()) -> Path:
    """Return the file of weights, or the index, in a folder. Raises Failure when there is none, or several."""
    names = weight_files((file.name for file in folder.iterdir() if file.is_file()), side_files)
    if not names:
        raise Failure(f"{folder}: no weights in this folder ({', '.join(SUFFIXES)})", BAD_INPUT)
    if len(names) > 1:
        raise Failure(f"{folder}: several files of weights; name one of {', '.join(names[:6])}", BAD_INPUT)
    return folder / names[0]


def shards(index: Path, must_exist: bool = True) -> tuple[list[Path], set[str]]:
    """Return the files that an index names, and the keys that they hold. Raises ConvertError, Failure."""
    try:
        if index.stat().st_size > MAX_INDEX:
            raise ValueError
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
        if not names or any(name != Path(name).name for name in names):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConvertError(f"{index}: not an index of shards") from None
    files = [index.parent / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if must_exist and missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise Failure(
            f"{index}: {len(missing)} of {len(files)} shards are missing: {', '.join(missing[:5])}{more}", BAD_INPUT
        )
    return files, set(weight_map)
