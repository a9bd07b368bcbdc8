"""`dalle inspect`: what a file says about itself. Files come from strangers: nothing in them is executed or trusted."""

import json
import math
import os
import struct
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import align, print_result
from .app import MANAGE, command
from .options import Json

PNG = b"\x89PNG\r\n\x1a\n"


class InspectError(ValueError):
    """A file of no kind that can be inspected; the message is one line."""


@command(
    MANAGE,
    "dalle inspect out/000000-0-an-avocado-chair.png",
    "dalle inspect starter/clip --verify",
    "dalle inspect vocab.json --json",
)
def inspect(
    file: Annotated[str, typer.Argument(help="A PNG, a tokenizer's JSON, or a checkpoint (file, run, starter/...).")],
    verify: Annotated[bool, typer.Option("--verify", help="Compare a checkpoint's tensors with its checksum.")] = False,
    as_json: Json = False,
) -> None:
    """Print what a picture, a checkpoint or a tokenizer says about itself."""
    path = Path(file)
    head = b""
    there = os.path.isfile(path)
    if there:
        with open(path, "rb") as stream:
            head = stream.read(24)
    if head.startswith(PNG):
        result = _picture(path, head)
    elif head[:1] == b"{" or head[:2] == b"\x1f\x8b":
        result = _tokenizer(path)
    elif there and head[8:9] != b"{":
        raise InspectError(f"{path}: neither a PNG, a checkpoint, nor a tokenizer's JSON")
    else:
        result = _checkpoint(file, verify)
    print_result(result, align(_lines(result)), as_json)


def _picture(path: Path, head: bytes) -> dict[str, Any]:
    """Size and metadata of a PNG; `dalle` is null for pictures made by other programs."""
    from ..generate.metadata import read

    found = read(path)
    width, height = struct.unpack(">II", head[16:24])  # the first chunk holds them
    size = {"width": width, "height": height}
    return {"kind": "picture", "path": str(path), **size, "parameters": None, "dalle": None, **found}


def _tokenizer(path: Path) -> dict[str, Any]:
    from ..text.loading import load

    return {"kind": "tokenizer", "path": str(path), **_entries(load(path))}


def _entries(tokenizer: Any) -> dict[str, Any]:
    return {"tokenizer": tokenizer.kind, "entries": tokenizer.vocab_size, "published": tokenizer.published}


def _checkpoint(name: str, verify: bool) -> dict[str, Any]:
    """What the header of a checkpoint, or of a run's saved state, says; `values` counts weights and statistics.

    Only `verify` reads the tensors.
    """
    from safetensors import SafetensorError, safe_open

    from .. import checkpoint
    from ..recipe import type_of
    from ..text.loading import from_state

    path = checkpoint.resolve(name)
    found = checkpoint.metadata(path)
    recipe = found["recipe"]
    try:
        state = found["tokenizer"]
        tokenizer = _entries(from_state(state)) if state is not None else None
    except ValueError as error:
        raise InspectError(f"{path}: its tokenizer: {error}") from None
    saved_state = "extra" in found  # weights, their averages and the optimiser's moments
    types: Counter[str] = Counter()
    values = 0
    try:
        with safe_open(path, framework="numpy") as file:  # checks every shape and offset of the header
            for key in file.keys():  # noqa: SIM118  (not a mapping)
                tensor = file.get_slice(key)
                types[tensor.get_dtype()] += 1
                if key.startswith("model.") or not saved_state:
                    values += math.prod(tensor.get_shape())
    except (SafetensorError, OSError, ValueError) as error:
        raise InspectError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if verify:
        checkpoint.read_tensors(path)
    return {
        "kind": "saved state" if saved_state else "checkpoint",
        "path": str(path),
        "bytes": path.stat().st_size,
        "model": type_of(recipe, "model"),
        "task": type_of(recipe, "task"),
        "step": found["step"],
        "samples": found["samples"],
        "values": values,
        "tensors": types.total(),
        "types": dict(types),
        "tokenizer": tokenizer,
        "frozen": recipe.get("frozen"),
        "checksum": "verified" if verify else "not verified",
        "recipe": recipe,
    }


def _lines(result: dict[str, Any]) -> list[tuple[str, Any]]:
    """A result as rows of two cells; values within others in JSON, recipes left to `dalle show`."""
    shown = dict(result)
    if shown["kind"] == "picture":
        record = shown.pop("dalle")
        text = shown.pop("parameters")
        if record is None:
            shown["metadata"] = text or "none"
        else:
            shown |= {key: record[key] for key in ("prompt", "seed", "command", "recipe", "version") if key in record}
            shown |= {key: record[key] for key in ("options", "models", "fields") if record.get(key)}
            if record["command"] == "sample":
                shown["again"] = f"dalle sample --like {shown['path']}"
    elif "recipe" in shown:
        shown["recipe"] = f"dalle show {shown['path']}"
    return [(key, _cell(value)) for key, value in shown.items() if value is not None]


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, int) and not isinstance(value, bool) else str(value)
