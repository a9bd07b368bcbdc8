"""Vocabulary files: reading merges in the published layouts, and finding published files on this machine.

Layouts: OpenAI CLIP's `bpe_simple_vocab_16e6.txt`; GPT-2's `vocab.bpe` next to `encoder.json`; Hugging Face's
`merges.txt` next to `vocab.json`, or `tokenizer.json`; our own JSON. Each can be gzipped. Nothing is downloaded.
"""

import gzip
import importlib.util
import json
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from . import TextError, tokenizers
from .bpe import END_OF_WORD, base_symbols

_LARGEST_FILE = 64 << 20  # bytes, unzipped
_CLIP_MERGES = 49_152 - 256 - 2  # lines of CLIP's file that are used; it has 262,144
_MERGE_FILES = ("vocab.bpe", "merges.txt", "bpe_simple_vocab_16e6.txt", "tokenizer.json")
_ID_FILES = ("encoder.json", "vocab.json")
_STARTER = Path(__file__).parents[1] / "starter" / "tokenizer.json"


class _Published(NamedTuple):
    variable: str  # of the environment
    packages: dict[str, str]  # installed package -> folder in it
    hub_folders: tuple[str, ...]  # in the Hugging Face cache
    source: str


_PUBLISHED = {
    "clip": _Published(
        "DALLE_CLIP_VOCAB",
        {"open_clip": ".", "clip": "."},
        ("models--openai--clip-vit-*",),
        "bpe_simple_vocab_16e6.txt.gz from github.com/openai/CLIP",
    ),
    "glide": _Published(
        "DALLE_GPT2_VOCAB",
        {"glide_text2im": "tokenizer"},
        ("models--openai-community--gpt2", "models--gpt2"),
        "vocab.bpe from github.com/openai/glide-text2im or huggingface.co/openai-community/gpt2",
    ),
}


def read_merges(path: str, kind: str, suffix: str) -> list[str]:
    """Return the merges, `left right`, of a vocabulary for tokenizers of this kind.

    path: a file, a folder that contains one, `published`, or `starter`. suffix: these tokenizers' mark of a word's end,
    or "". Raises TextError if the file is missing, malformed, or of the other format.
    """
    if path == "published":
        file = find_published(kind)
    elif path == "starter":
        file = _STARTER
    else:
        file = _merge_file(Path(path).expanduser())
    content = _read(file)
    merges, found = _json_merges(_parse(content, file), file) if content[:1] == "{" else _text_merges(content)
    if found != suffix:
        other = "CLIP" if found else "GPT-2"
        raise TextError(f"{file}: a vocabulary in {other}'s format, which a '{kind}' tokenizer does not read")
    _check_ids(file, merges, suffix)
    return merges


def read_json(file: Path) -> Any:
    """Return the JSON value in one of our own files. Raises TextError if it cannot be read."""
    return _parse(_read(file), file)


def find_published(kind: str) -> Path:
    """Return the published vocabulary of `clip` or `glide` on this machine. Raises TextError if there is none."""
    if kind not in _PUBLISHED:
        raise TextError(f"no vocabulary for '{kind}' was ever published: learn one with dalle train-tokenizer")
    known = _PUBLISHED[kind]
    named = os.environ.get(known.variable)
    if named:
        return _merge_file(Path(named).expanduser())
    folders = []
    for package, folder in known.packages.items():
        spec = importlib.util.find_spec(package)  # locates a top-level package without importing it
        folders += [Path(place, folder) for place in (spec and spec.submodule_search_locations) or ()]
    for pattern in known.hub_folders:
        folders += sorted(hub_cache().glob(f"{pattern}/snapshots/*"))
    found = next(filter(None, map(in_folder, folders)), None)
    if found is None:
        raise TextError(
            f"the published vocabulary of '{kind}' is not on this machine: set path or {known.variable} to "
            f"{known.source}, or learn your own with dalle train-tokenizer"
        )
    return found


def hub_cache() -> Path:
    """Return the folder in which Hugging Face's libraries keep downloads."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def _merge_file(path: Path) -> Path:
    folder = path.parent if path.name.removesuffix(".gz") in _ID_FILES else path
    if not folder.is_dir():
        return path
    file = in_folder(folder)
    if file is None:
        raise TextError(f"{folder}: no vocabulary in this folder; expected one of {', '.join(_MERGE_FILES)}")
    return file


def in_folder(folder: Path, names: tuple[str, ...] = _MERGE_FILES) -> Path | None:
    """Return the vocabulary in a folder, or None."""
    files = (folder / (name + ending) for name in names for ending in ("", ".gz"))
    return next((file for file in files if file.is_file()), None)


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            zipped = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            data = (gzip.GzipFile(fileobj=stream) if zipped else stream).read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise TextError(f"{file}: larger than any vocabulary ({_LARGEST_FILE >> 20} MiB)")
        return data.decode()
    except OSError as error:
        raise TextError(
            f"{file}: cannot read a vocabulary here ({error.strerror or error}); name a file or a folder"
        ) from None
    except (EOFError, zlib.error, UnicodeDecodeError):
        raise TextError(f"{file}: not a vocabulary, or a damaged one; expected UTF-8 text, JSON or gzip") from None


def _parse(content: str, file: Path) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise TextError(f"{file}: not valid JSON, or cut short") from None


def _text_merges(content: str) -> tuple[list[str], str]:
    lines = content.rstrip("\n").split("\n")
    if "#version" in lines[0]:
        lines = lines[1:]
    marked = any(line.endswith(END_OF_WORD) for line in lines)
    return (lines[:_CLIP_MERGES], END_OF_WORD) if marked else (lines, "")


def _json_merges(content: Any, file: Path) -> tuple[list[str], str]:
    if "type" in content and "merges" in content:  # our own
        return content["merges"], tokenizers.get(content["type"]).suffix
    try:
        model = content["model"]  # Hugging Face's tokenizer.json
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        return merges, model.get("end_of_word_suffix") or ""
    except (KeyError, TypeError, AttributeError):
        raise TextError(f"{file}: JSON without the merges of a byte-pair encoding") from None


def _check_ids(file: Path, merges: list[str], suffix: str) -> None:
    """If a file next to the merges lists the ids, check that they are those that follow from the merges."""
    beside = in_folder(file.parent, _ID_FILES)
    if beside is None or file.name.removesuffix(".gz") not in _MERGE_FILES[:2]:
        return
    ids = read_json(beside)
    if not isinstance(ids, dict):
        raise TextError(f"{beside}: expected a mapping of symbols to ids")
    symbols = base_symbols(suffix) + [str(merge).replace(" ", "") for merge in merges]
    wrong = next((i for i, symbol in enumerate(symbols) if ids.get(symbol) != i), None)
    if wrong is not None:
        raise TextError(f"{beside}: gives {symbols[wrong]!r} another id than {wrong}, its place in {file.name}")
