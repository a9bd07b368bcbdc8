"""`dalle inspect`: what a file says about itself. Files may come from anywhere: nothing in them is run or trusted."""

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
TORCH = (b"PK\x03\x04", b"\x80")  # how zip archives and pickles begin


class InspectError(ValueError):
    """A file that cannot be inspected; the message is one line."""


@command(
    MANAGE,
    "dalle inspect out/000000-0-an-avocado-chair.png",
    "dalle inspect starter/clip --verify",
    "dalle inspect ViT-B-32.pt",
    "dalle inspect vocab.json --json",
)
def inspect(
    file: Annotated[
        str,
        typer.Argument(help="A PNG, a tokenizer's JSON, a checkpoint (file, run, starter/...), or published weights."),
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all tensors and compare their checksum. Default: only the header.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the metadata of an image, a tokenizer, a checkpoint or published weights."""
    path = Path(file)
    head = b""
    exists = os.path.isfile(path)
    if exists:
        with open(path, "rb") as stream:
            head = stream.read(24)
    if head.startswith(PNG):
        result = _image(path, head)
    elif head[:1] == b"{" or head[:2] == b"\x1f\x8b":
        result = _tokenizer_file(path)
    elif _is_published(file, head):
        result = _published(path, verify)
    elif exists and head[8:9] != b"{":
        raise InspectError(f"{path}: not a PNG, a checkpoint, published weights or a tokenizer's JSON")
    else:
        result = _checkpoint(file, verify)
    print_result(result, align(_lines(result)), as_json)


def _image(path: Path, head: bytes) -> dict[str, Any]:
    """Return the size and metadata of a PNG; `dalle` is null for images that other programs made."""
    from ..generate.metadata import read

    metadata = read(path)  # refuses what is not a whole PNG
    width, height = struct.unpack(">II", head[16:24])  # IHDR, always the first chunk
    size = {"width": width, "height": height}
    return {"kind": "image", "path": str(path), **size, "parameters": None, "dalle": None, **metadata}


def _tokenizer_file(path: Path) -> dict[str, Any]:
    from ..text.loading import load

    return {"kind": "tokenizer", "path": str(path), **_tokenizer(load(path))}


def _tokenizer(tokenizer: Any) -> dict[str, Any]:
    return {"tokenizer": tokenizer.kind, "vocab_size": tokenizer.vocab_size, "published": tokenizer.published}


def _is_published(name: str, head: bytes) -> bool:
    """Whether a file or folder holds weights of other programs: torch's, or safetensors that are not ours."""
    from .. import checkpoint

    path = Path(name)
    if os.path.isdir(name):
        try:
            checkpoint.resolve(name)
        except checkpoint.CheckpointError:
            return any(path.iterdir())
        return False
    if not os.path.isfile(name) or head[8:9] != b"{":
        return head.startswith(TORCH)
    metadata = checkpoint.read_header(path).get("__metadata__", {})
    return isinstance(metadata, dict) and metadata.get("format") != "dalle"


def _published(path: Path, verify: bool) -> dict[str, Any]:
    """Return the layout, recipe and sizes of published weights; only `verify` reads their numbers."""
    from ..convert import dtypes
    from ..convert.files.opening import open_weights
    from ..convert.recognition import make_recipe

    weights = open_weights(path)
    tensors = weights.state.values()
    return {
        "kind": "published weights",
        "path": str(path),
        "bytes": sum(file.stat().st_size for file in weights.files),
        "layout": weights.layout.name,
        "published": weights.published_name() if verify else None,
        "num_parameters": sum(tensor.numel() for tensor in tensors),
        "tensors": len(tensors),
        "dtypes": dict(Counter(dtypes.name(tensor.dtype) for tensor in tensors)),
        "recipe": make_recipe(weights.layout, weights.state, weights.config),
    }


def _checkpoint(name: str, verify: bool) -> dict[str, Any]:
    """Return the metadata of a checkpoint, or of the saved state of a run; only `verify` reads the tensors."""
    from .. import checkpoint
    from ..recipe import type_of

    path = checkpoint.resolve(name)
    metadata = checkpoint.metadata(path)
    recipe = metadata["recipe"]
    is_state = "extra" in metadata  # weights, their averages and the moments of the optimizer
    tokenizer, tensors = _carried_tokenizer(path, metadata["tokenizer"]), _tensors(path, is_state)
    if verify:
        checkpoint.read_tensors(path)
    return {
        "kind": "saved state" if is_state else "checkpoint",
        "path": str(path),
        "bytes": path.stat().st_size,
        "model": type_of(recipe, "model"),
        "task": type_of(recipe, "task"),
        "step": metadata["step"],
        "samples": metadata["samples"],
        **tensors,
        "tokenizer": tokenizer,
        "frozen": recipe.get("frozen"),
        "checksum": "verified" if verify else "not verified",
        "recipe": recipe,
    }


def _carried_tokenizer(path: Path, state: Any) -> dict[str, Any] | None:
    from ..text.loading import from_state

    try:
        return None if state is None else _tokenizer(from_state(state))
    except ValueError as error:
        raise InspectError(f"{path}: its tokenizer: {error}") from None


def _tensors(path: Path, is_state: bool) -> dict[str, Any]:
    """Return the number of parameters and buffers of the model, and of tensors by data type.

    Opening the file checks every shape and offset of its header.
    """
    from safetensors import SafetensorError, safe_open

    from ..convert.files.opening import DTYPES

    dtypes: Counter[str] = Counter()
    num_parameters = 0
    try:
        with safe_open(path, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118  (not a mapping)
                tensor = file.get_slice(key)
                dtype = str(tensor.get_dtype())
                dtypes[DTYPES.get(dtype, dtype)] += 1
                if key.startswith("model.") or not is_state:
                    num_parameters += math.prod(tensor.get_shape())
    except (SafetensorError, OSError, ValueError) as error:
        raise InspectError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    return {"num_parameters": num_parameters, "tensors": dtypes.total(), "dtypes": dict(dtypes)}


def _lines(result: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return a result as rows of two cells: nested values as JSON, recipes as the command that prints them."""
    shown = dict(result)
    if shown["kind"] == "image":
        record = shown.pop("dalle")
        text = shown.pop("parameters")
        if record is None:
            shown["metadata"] = text or "none"
        else:
            shown |= {key: record[key] for key in ("prompt", "seed", "command", "recipe", "version") if key in record}
            shown |= {key: record[key] for key in ("options", "models", "fields") if record.get(key)}
            if record["command"] == "sample":
                shown["reproduce"] = f"dalle sample --reproduce {shown['path']}"
    elif "checksum" in shown:  # of a checkpoint
        shown["recipe"] = f"dalle show {shown['path']}"
    return [(key, _cell(value)) for key, value in shown.items() if value is not None]


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, int) and not isinstance(value, bool) else str(value)
