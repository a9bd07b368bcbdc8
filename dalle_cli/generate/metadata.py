"""What an image says of its origin: two text chunks of its PNG file.

`parameters` has the layout that image browsers read (prompt, negative prompt, a line of `Steps: .., Seed: ..`);
`dalle` is JSON with everything needed to generate the image again. Pillow reads the chunks, without decoding a pixel
and with its limits on their size, as images can come from untrusted sources.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from .. import __version__
from ..migrations import PARTS_KEYS, sampling_to_version_2
from .requests import MAX_JSON_DEPTH, GenerationRequest, PlannedImage, PromptError, json_object, parse_request

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\0\0\0\0IEND\xaeB`\x82"
MAX_TEXT = 1 << 20  # characters; the longest request line, escaped, takes 3/4 of it
CHUNKS = ("parameters", "dalle")

_TYPES = {"command": str, "version": str, "recipe": str, "options": dict, "models": dict, "fields": dict, "index": int}


class MetadataError(ValueError):
    """An image without our text chunks, or with invalid ones; the message is one line naming the file."""


@dataclass(frozen=True)
class Origin:
    """What all images of a run have in common.

    command: the subcommand. recipe: name or path of the system. options: the resolved sampling options. models: part ->
    SHA-256 of its checkpoint; image browsers show the first.
    """

    command: str
    recipe: str
    options: dict[str, Any]
    models: dict[str, str]


def digest(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunks(
    origin: Origin, item: PlannedImage, size: tuple[int, int], details: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Return the text chunks of an image. size: width, height in pixels. details: more fields of its result."""
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
    """Return the text that image browsers read: prompt, negative prompt if any, one line of `Key: value` pairs.

    The layout is that of AUTOMATIC1111's web UI. Browsers find the line by `Steps:`, so that models which generate in
    one pass have 1.
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
    lines = [_one_line(item.request.prompt or "")]  # a second line could be read as the negative prompt
    if isinstance(negative, str) and negative.strip():
        lines.append(f"Negative prompt: {_one_line(negative)}")
    lines.append(", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items() if value is not None))
    return "\n".join(lines)


def read(path: str | Path) -> dict[str, Any]:
    """Return `parameters` (str) and `dalle` (dict, with checked types) of a PNG, if it has them. Raises MetadataError.

    Images of other programs have `parameters` or nothing.
    """
    try:
        metadata: dict[str, Any] = _texts(path)
        if "dalle" in metadata:
            metadata["dalle"] = json_object(metadata["dalle"], MAX_JSON_DEPTH + 1)  # a line's fields, one level deeper
            _recall(metadata["dalle"])
        return metadata
    except OSError as error:
        raise MetadataError(f"{path}: {error.strerror or error}") from None
    except PromptError as error:
        raise MetadataError(f"{path}: its text 'dalle': {error}") from None
    except MetadataError as error:
        raise MetadataError(f"{path}: {error}") from None


def recall(path: str | Path) -> tuple[Origin, GenerationRequest]:
    """Return what reproduces an image: its origin, and a request with its seed and sample index.

    Raises MetadataError.
    """
    metadata = read(path)
    if "dalle" not in metadata:
        raise MetadataError(f"{path}: nothing in it says how to generate it again; give a PNG that dalle wrote")
    return _recall(metadata["dalle"])


def whole(path: str | Path) -> bool:
    """Return whether a file begins and ends as a PNG does: a write that was interrupted does not."""
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


def _texts(path: str | Path) -> dict[str, str]:
    """Return our text chunks, which precede the pixels. Raises MetadataError, OSError."""
    with open(path, "rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            raise MetadataError("not a PNG")
    if not whole(path):
        raise MetadataError("a PNG that was cut short")
    try:
        with Image.open(path, formats=["PNG"]) as image:
            texts = {key: str(image.info[key]) for key in CHUNKS if key in image.info}
    except UnidentifiedImageError:
        raise MetadataError("a damaged PNG") from None
    except (ValueError, Image.DecompressionBombError):  # Pillow's limits on texts and on images
        raise MetadataError("its text, or the image, is too large") from None
    for key, text in texts.items():
        if len(text) > MAX_TEXT:
            raise MetadataError(f"its text '{key}' is too large: {len(text)} characters")
    return texts


def _option(options: Mapping[str, Any], key: str) -> Any:
    """Return an option of the system itself, of its decoder, or of the first of its parts that has it."""
    parts = [options, options.get("decoder"), *options.values()]
    return next((part[key] for part in parts if isinstance(part, Mapping) and part.get(key) is not None), None)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ',:"\n') else value
