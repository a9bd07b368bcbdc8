"""Checkpoints: one safetensors file that carries its recipe and tokenizer, and the composition of tasks from recipes.

The metadata of a file, all of it text: `format` (dalle), `version`, `recipe` (JSON), `tokenizer` (JSON, where there is
one), `step`, `samples`, `crc32` of the tensors, `seal`, the checksum of the rest. `load(path)` needs nothing else.
Nothing in a file is ever executed.
"""

import inspect
import json
import struct
import typing
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .files import CHECKPOINT, find_checkpoint, write_atomically
from .migrations import MIGRATIONS
from .models import AdoptsWeights, models
from .nn import meta_init
from .recipe import FAMILIES, Recipe, names, section, type_of
from .registry import RecipeError
from .tasks import tasks
from .text import tokenizers
from .text.loading import from_state

VERSION = 2
FILE = CHECKPOINT
HEADER_LIMIT = 100_000_000  # bytes; safetensors' own limit


class CheckpointError(ValueError):
    """A file is not a whole, readable checkpoint of the kind that was asked for."""


class NewerFormat(CheckpointError):
    """A file of a later version of dalle."""


def compose(recipe: Recipe, tokenizer: Any = None, frozen: Mapping[str, str | nn.Module] | None = None) -> nn.Module:
    """Return the task of a training recipe: a fresh model, its frozen models and its objective.

    tokenizer: one that is already built, instead of the recipe's. frozen: checkpoints, or models, that replace those
    that the recipe's `frozen` names.
    """
    if tokenizer is None and recipe.get("tokenizer"):
        tokenizer = tokenizers.build(recipe["tokenizer"], "tokenizer")
    built: dict[str, Any] = {"tokenizer": tokenizer} if tokenizer is not None else {}
    frozen = {**section(recipe, "frozen"), **(frozen or {})}
    part, _ = tasks.bind(recipe.get("task"), "task", {*built, *frozen, "model"})
    _check_frozen(frozen, part, recipe)
    hints = typing.get_type_hints(part.__init__)
    for name, source in frozen.items():
        network: Any = source if isinstance(source, nn.Module) else load(str(source)).model
        if not isinstance(network, hints[name]):
            actual = type(network).__name__
            expected = next(
                hint for hint in (*typing.get_args(hints[name]), hints[name]) if isinstance(hint, type)
            ).__name__
            raise RecipeError(f"frozen.{name}: a {actual}, where task '{recipe['task']['type']}' needs a {expected}")
        built[name] = network.requires_grad_(False).eval()
    model = models.build(recipe.get("model"), "model")
    return tasks.build(recipe["task"], "task", model=model, **built)


def check(recipe: Recipe) -> Recipe:
    """Return a training recipe with the sections that hold parts validated and typed; nothing is built."""
    frozen = section(recipe, "frozen")
    typed, given = dict(recipe), {"model", *frozen}
    if recipe.get("tokenizer"):
        given.add("tokenizer")
        typed["tokenizer"] = tokenizers.typed(recipe["tokenizer"], "tokenizer")
    typed["model"] = models.typed(recipe.get("model"), "model")
    typed["task"] = tasks.typed(recipe.get("task"), "task", given)
    _check_frozen(frozen, tasks.get(typed["task"]["type"]), recipe)
    return typed


def _check_frozen(names: Iterable[str], part: Callable, recipe: Recipe) -> None:
    for name in names:
        if name not in _arguments(part):
            raise RecipeError(f"frozen.{name}: task '{recipe['task']['type']}' takes no '{name}'")


def accepted_arguments(path: str, name: str) -> set[str] | None:
    """Return the names of the arguments of the part `name` in a section; None for sections without parts."""
    from .data import sources
    from .data.loader import Loading

    registry = {"model": models, "task": tasks, "tokenizer": tokenizers, "data": sources}.get(path.split(".")[0])
    if registry is None:
        return None
    extra = _arguments(Loading) if path == "data" else set()
    return _arguments(registry.get(name, f"{path}.type")) | extra


def _arguments(part: Callable) -> set[str]:
    return set(inspect.signature(part).parameters)


def save(
    path: Path,
    tensors: Mapping[str, Tensor],
    recipe: Recipe,
    tokenizer: Any = None,
    step: int = 0,
    samples: int = 0,
    dtype: torch.dtype | None = None,
    **more: str,
) -> None:
    """Write a checkpoint: to a temporary name in the same folder, flushed to disk, renamed.

    dtype: store floating-point tensors in this type.
    """
    stored = {}
    for key, tensor in tensors.items():
        tensor = tensor.detach().to("cpu")
        if dtype and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        stored[key] = tensor.contiguous()
    metadata = {"format": "dalle", "version": str(VERSION), "recipe": json.dumps(recipe)}
    metadata |= {"step": str(step), "samples": str(samples), "crc32": str(_checksum(stored)), **more}
    if tokenizer is not None:
        metadata["tokenizer"] = json.dumps(tokenizer.state(), ensure_ascii=False)
    metadata["seal"] = _seal(metadata)
    try:
        write_atomically(path, lambda temporary: save_file(stored, temporary, metadata=metadata))
    except SafetensorError as error:  # raised for a full disk
        raise OSError(f"{path}: cannot be written: {str(error).splitlines()[0].rpartition(': ')[2]}") from None


def metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint with its JSON parsed: recipe, tokenizer, step, samples.

    Only the header is read. Raises CheckpointError for anything that is not a checkpoint of a format known here.
    """
    raw = read_header(path).get("__metadata__") or {}
    if not isinstance(raw, dict) or raw.get("format") != "dalle":
        raise CheckpointError(f"{path}: a safetensors file, but not of dalle (`dalle train-*`, `dalle export`)")
    try:
        version = int(raw["version"])
        recipe = json.loads(raw["recipe"])
        tokenizer = json.loads(raw["tokenizer"]) if "tokenizer" in raw else None
        step, samples, crc32 = int(raw["step"]), int(raw["samples"]), int(raw["crc32"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise CheckpointError(f"{path}: the header is damaged") from None
    if version > VERSION:
        raise NewerFormat(f"{path}: written by a newer dalle (format {version}, here {VERSION}); update dalle")
    if version < 1 or not isinstance(recipe, dict) or raw.get("seal", _seal(raw)) != _seal(raw):
        raise CheckpointError(f"{path}: the header is damaged")
    for old in range(version, VERSION):
        recipe = MIGRATIONS[old](recipe)
    known = {"format", "version", "recipe", "tokenizer", "step", "samples", "crc32", "seal"}
    more = {key: value for key, value in raw.items() if key not in known}
    return more | {"recipe": recipe, "tokenizer": tokenizer, "step": step, "samples": samples, "crc32": crc32}


def read_header(path: Path) -> dict[str, Any]:
    """Return the JSON header of a safetensors file, with the file's length checked against it."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(HEADER_LIMIT, size - 8):
                raise CheckpointError(f"{path}: not a safetensors file, or cut short")
            header = json.loads(file.read(length))
        ends = [spec["data_offsets"][1] for key, spec in header.items() if key != "__metadata__"]
        complete = 8 + length + max(ends, default=0) == size
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: not a safetensors file") from None
    if not complete:
        raise CheckpointError(f"{path}: cut short or padded: its size is not what its header says")
    return header


def read_tensors(path: Path, verify: bool = True) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint. Raises CheckpointError when they are not those that were written."""
    expected = metadata(path)["crc32"]
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if verify and _checksum(tensors) != expected:
        raise CheckpointError(f"{path}: damaged: its tensors are not those that were written (checksum differs)")
    return tensors


def _seal(metadata: Mapping[str, Any]) -> str:
    """Checksum of the metadata, the seal aside."""
    rest = {key: value for key, value in metadata.items() if key != "seal"}
    return str(zlib.crc32(json.dumps(rest, sort_keys=True).encode()))


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    value = 0
    for key in sorted(tensors):
        value = zlib.crc32(key.encode(), value)
        flat = tensors[key].detach().contiguous().reshape(-1)
        value = zlib.crc32(flat.view(torch.uint8).numpy().data if flat.numel() else b"", value)
    return value


def load(
    name: str,
    kind: str | tuple[str, ...] | None = None,
    frozen: Mapping[str, str | nn.Module] | None = None,
    mmap: bool = False,
) -> nn.Module:
    """Return the task of a checkpoint, in evaluation mode, float32.

    name: see `resolve`. kind: the model type that is expected, or several. frozen: see `compose`. mmap: the
    weights stay in the file, in its types, and are read when they are used.
    """
    path = resolve(name)
    header = metadata(path)
    recipe = header["recipe"]
    type_ = type_of(recipe, "model")
    kinds = (kind,) if isinstance(kind, str) else kind
    if kinds and type_ not in kinds:
        needed = " or a ".join(f"'{name}'" for name in kinds)
        raise CheckpointError(f"{path}: holds a '{type_}', where a {needed} is needed")
    tensors = read_tensors(path)
    try:
        tokenizer = from_state(header["tokenizer"]) if header["tokenizer"] else None
        if wrong := _misfits(recipe, tensors):  # before memory is taken for what an untrusted recipe asks for
            raise ValueError(", ".join(wrong))
        with meta_init.NoInit() if mmap else nullcontext():
            task: Any = compose(recipe, tokenizer, frozen)
        if mmap:
            task.requires_grad_(False).model.load_state_dict(tensors, assign=True)
        else:
            floats = {key: tensors.pop(key).float() for key in list(tensors)}  # never a third copy of the weights
            task.model.load_state_dict(floats)
    except CheckpointError:  # a frozen model's
        raise
    except (ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{path}: does not fit its recipe: {str(error).splitlines()[0]}") from None
    return task.eval()


def load_meta(name: str, frozen: Mapping[str, str] | None = None) -> nn.Module:
    """Return the task of a checkpoint on the meta device: what `load` gives, without weights.

    Raises CheckpointError.
    """
    header = metadata(resolve(name))
    tokenizer = from_state(header["tokenizer"]) if header["tokenizer"] else None
    frozen = {**(header["recipe"].get("frozen") or {}), **(frozen or {})}
    with meta_init.on_meta_device():
        built = {key: models.build(metadata(resolve(str(source)))["recipe"]["model"]) for key, source in frozen.items()}
        return compose(header["recipe"], tokenizer, built).eval()


def initial_weights(name: str, recipe: Recipe) -> dict[str, Tensor]:
    """Return the float32 weights of a checkpoint for the model of a recipe. Raises CheckpointError if they do not fit.

    A network that is an AdoptsWeights may start from a smaller one.
    """
    path = resolve(name)
    tensors = {key: value.float() for key, value in read_tensors(path).items()}
    with meta_init.on_meta_device():
        model: Any = models.build(recipe.get("model"), "model")
        if isinstance(model, AdoptsWeights):
            tensors = model.adopt(tensors, models.build(metadata(path)["recipe"].get("model"), "model"))
    if wrong := _misfits(recipe, tensors):
        raise CheckpointError(f"train.init_from: {path} does not fit the model: {', '.join(wrong)}")
    return tensors


def _misfits(recipe: Recipe, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return up to four reasons why tensors do not fit the model of a recipe."""
    with meta_init.on_meta_device():
        wanted = models.build(recipe.get("model"), "model").state_dict()
    wrong = [f"no {key}" for key in sorted(wanted.keys() - tensors.keys())]
    wrong += [f"unknown {key}" for key in sorted(tensors.keys() - wanted.keys())]
    wrong += [
        f"{key} of {tuple(tensors[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in sorted(wanted.keys() & tensors.keys())
        if wanted[key].shape != tensors[key].shape
    ]
    return wrong[:4]


def trained_image_size(path: Path, default: int) -> int:
    """Return the side of the images that a checkpoint was trained on; `default` if its recipe does not say."""
    data = metadata(path)["recipe"].get("data")
    size = data.get("size") if isinstance(data, dict) else None
    return size if isinstance(size, int) and 1 <= size <= 1 << 16 else default


def resolve(name: str) -> Path:
    """Return the file of a checkpoint.

    name: a file, a folder that holds model.safetensors, a run under checkpoints/, or a starter. Starters, the small
    models shipped with the package, are called `starter/dvae`, `starter/clip` and so on.
    """
    if path := find_checkpoint(name):
        return path
    if command := _training_command(name):
        raise CheckpointError(f"no checkpoint '{name}' yet: train it first, {command}")
    raise CheckpointError(f"no checkpoint '{name}': neither a file, a run folder, nor a run under checkpoints/")


def _training_command(name: str) -> str | None:
    """Return the command that trains a missing checkpoint, if its name is that of the default run of a recipe."""
    family, _, recipe = name.removeprefix("checkpoints/").partition("-")
    if family in FAMILIES and recipe in names(family):
        out = f" --out {name}" if family == "tokenizer" else ""
        return f"dalle {FAMILIES[family]} --recipe {recipe}{out}"
    return None
