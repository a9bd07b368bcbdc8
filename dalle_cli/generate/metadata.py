"""How a picture says where it comes from: two text chunks of its PNG file.

`parameters` has the layout that image browsers read (prompt, negative prompt, a line of `Steps: .., Seed: ..`);
`dalle` is JSON with everything needed to draw the picture again. Chunks are read without decoding a pixel and with
limits on everything, as pictures come from strangers.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .. import __version__
from ..migrations import PARTS_KEYS, sampling_to_version_2
from .requests import MAX_JSON_DEPTH, GenerationRequest, PlannedImage, PromptError, json_object, parse_request

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\0\0\0\0IEND\xaeB`\x82"
LARGEST = 4 << 20  # bytes of one text, decompressed; a longest line, escaped, takes 3/16 of it
MOST_CHUNKS = 100_000  # writers put at least 8 KB of pixels into a chunk
OURS = ("parameters", "dalle")

_TYPES = {"command": str, "version": str, "recipe": str, "options": dict, "models": dict, "fields": dict, "index": int}


class MetadataError(ValueError):
    """A picture without text of ours, or with broken or hostile text; the message is one line naming the file."""


@dataclass(frozen=True)
class Origin:
    """What the pictures of a run have in common.

    command: the subcommand; recipe: name or path of the system; options: as resolved, how it is drawn; models: name
    -> SHA-256 of its file, the one that image browsers are to show first.
    """

    command: str
    recipe: str
    options: dict[str, Any]
    models: dict[str, str]


def digest(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunks(
    origin: Origin, item: PlannedImage, size: tuple[int, int], details: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """The text chunks of a picture. size: width, height in pixels; details: what else its result says (`score`)."""
    record = {
        "command": origin.command,
        "version": __version__,
        "recipe": origin.recipe,
        "options": origin.options,
        "models": origin.models,
        "prompt": item.request.prompt,
        "seed": item.seed,
        "sample_index": item.sample_index,
        "index": item.index,
        "fields": item.request.passthrough,
        **({"result": dict(details)} if details else {}),
    }
    return {"parameters": parameters(origin, item, size), "dalle": json.dumps(record, allow_nan=False)}


def parameters(origin: Origin, item: PlannedImage, size: tuple[int, int]) -> str:
    """The layout of AUTOMATIC1111's web UI: prompt, negative prompt if any, one line of `Key: value` pairs.

    Browsers find that line by `Steps:`, so networks that draw in one pass have 1.
    """
    negative = item.request.fields.get("negative_prompt", origin.options.get("negative_prompt"))
    pairs = {
        "Steps": _option(origin.options, "steps") or 1,
        "Sampler": _option(origin.options, "sampler"),
        "CFG scale": _option(origin.options, "guidance_scale"),
        "Seed": item.seed,
        "Size": f"{size[0]}x{size[1]}",
        "Model hash": next(iter(origin.models.values()), "")[:10] or None,
        "Model": Path(origin.recipe).stem or None,
        "Version": f"dalle {__version__}",
    }
    lines = [_one_line(item.request.prompt or "")]  # a second line might be taken for the negative prompt
    if isinstance(negative, str) and negative.strip():
        lines.append(f"Negative prompt: {_one_line(negative)}")
    lines.append(", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items() if value is not None))
    return "\n".join(lines)


def read(path: str | Path) -> dict[str, Any]:
    """`parameters` (str) and `dalle` (dict, its types checked) of a PNG, as far as it has them. Raises MetadataError.

    Pictures by other programs have `parameters` or nothing.
    """
    try:
        with open(path, "rb") as file:
            found: dict[str, Any] = _texts(file)
        if "dalle" in found:
            found["dalle"] = json_object(found["dalle"], MAX_JSON_DEPTH + 1)  # a line's fields, one deeper
            _recall(found["dalle"])
        return found
    except OSError as error:
        raise MetadataError(f"{path}: {error.strerror or error}") from None
    except PromptError as error:
        raise MetadataError(f"{path}: its text 'dalle': {error}") from None
    except MetadataError as error:
        raise MetadataError(f"{path}: {error}") from None


def recall(path: str | Path) -> tuple[Origin, GenerationRequest]:
    """What draws a picture again: its origin, and a request with its seed and draw. Raises MetadataError."""
    found = read(path)
    if "dalle" not in found:
        raise MetadataError(f"{path}: nothing in it says how to draw it again; give a PNG as dalle wrote it")
    return _recall(found["dalle"])


def whole(path: str | Path) -> bool:
    """Whether a file begins and ends as a PNG does: a write that was cut short is not."""
    try:
        with open(path, "rb") as file:
            if file.read(len(SIGNATURE)) != SIGNATURE:
                return False
            file.seek(-len(END), 2)
            return file.read() == END
    except OSError:
        return False


def _recall(record: Mapping[str, Any]) -> tuple[Origin, GenerationRequest]:
    for key, kind in _TYPES.items():
        if type(record.get(key)) is not kind:
            raise PromptError(f"'{key}' is missing or of the wrong type")
    if not all(isinstance(value, str) for value in record["models"].values()):
        raise PromptError("'models' must name a hash for each file")
    record = _migrated(record)
    if record.get("seed") is None or record.get("sample_index") is None:
        raise PromptError("'seed' or 'sample_index' is missing")
    asked = {key: record.get(key) for key in ("prompt", "seed", "sample_index")}
    origin = Origin(record["command"], record["recipe"], record["options"], record["models"])
    return origin, parse_request({**record["fields"], **asked})


def _migrated(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record of an image of version 0.1, recognized by its field `draw`, with today's names."""
    if "draw" not in record or "sample_index" in record:
        return record
    models = {PARTS_KEYS.get(part, part): value for part, value in record["models"].items()}
    options = sampling_to_version_2(record["options"])
    return {**record, "sample_index": record["draw"], "models": models, "options": options}


def _texts(file: BinaryIO) -> dict[str, str]:
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise MetadataError("not a PNG")
    found = {}
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            raise MetadataError("a PNG that was cut short")
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return found
        read = 0
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            start = file.read(min(length, 80))  # a keyword has at most 79 bytes
            keyword = start.split(b"\0")[0].decode("latin-1")
            read = len(start)
            if keyword in OURS:
                if length > LARGEST:
                    raise MetadataError(f"its text '{keyword}' is too large: {length} bytes")
                data = start + file.read(length - read)
                read = len(data)
                check = file.read(4)
                if len(check) < 4 or zlib.crc32(kind + data) != int.from_bytes(check, "big"):
                    raise MetadataError(f"its text '{keyword}' is damaged")
                file.seek(-4, 1)
                found[keyword] = _text(kind, data, keyword)
        file.seek(length - read + 4, 1)
    raise MetadataError(f"more than {MOST_CHUNKS} chunks")


def _text(kind: bytes, data: bytes, keyword: str) -> str:
    """Text of a chunk: tEXt (Latin-1), zTXt (the same, compressed) or iTXt (UTF-8, compressed or not)."""
    try:
        rest = data.split(b"\0", 1)[1]
        if kind == b"tEXt":
            return rest.decode("latin-1")
        if kind == b"zTXt":
            return _inflate(rest[1:]).decode("latin-1")
        compressed, rest = rest[0], rest[2:].split(b"\0", 2)[2]  # after language and translated keyword
        return (_inflate(rest) if compressed else rest).decode("utf-8")
    except (IndexError, UnicodeDecodeError, zlib.error):
        raise MetadataError(f"its text '{keyword}' is damaged") from None
    except OverflowError:
        raise MetadataError(f"its text '{keyword}' is too large: over {LARGEST} bytes when decompressed") from None


def _inflate(data: bytes) -> bytes:
    inflating = zlib.decompressobj()
    text = inflating.decompress(data, LARGEST + 1)
    if len(text) > LARGEST:
        raise OverflowError
    if not inflating.eof:
        raise zlib.error("cut short")
    return text


def _option(options: Mapping[str, Any], key: str) -> Any:
    """An option of the system itself, else of its decoder, else of the first of its parts that has it."""
    parts = [options, options.get("decoder"), *options.values()]
    return next((part[key] for part in parts if isinstance(part, Mapping) and part.get(key) is not None), None)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ',:"\n') else value
