"""Export checkpoints: in another precision, or in a published layout as one file or as a folder of Hugging Face's.

A folder opens in open_clip, transformers or diffusers by the configuration that is written next to the weights.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from .. import checkpoint
from ..exits import BAD_INPUT, USAGE, WOULD_OVERWRITE, Failure
from ..files import check_target, write_atomically
from ..models.clip import MEAN, STD
from ..recipe import section
from ..registry import suggest
from ..text.bpe import base_symbols
from ..text.loading import from_state
from . import dtypes
from .layout import Layout
from .layouts import all_layouts
from .recognition import complete, export_state

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
NATIVE = "dalle"  # the layout of our checkpoints


def export(name: str, layout: str, out: str, precision: str | None, overwrite: bool) -> list[str]:
    """Write the checkpoint `name` in a layout; returns the files.

    layout: `dalle` for a checkpoint of ours, by default in fp16; otherwise one of `all_layouts()`, by default in the
    dtypes of the weights. out: a file (.safetensors, or one for torch.load), or the folder of a layout that has a
    configuration. Raises CheckpointError, ConvertError, Failure.
    """
    known = {NATIVE, *all_layouts()}
    if layout not in known:
        raise Failure(f"--format {layout}: no such layout{suggest(layout, known)}", USAGE)
    if layout == NATIVE:
        export_checkpoint(name, Path(out), precision or "fp16", overwrite)
        return [out]
    dtype = dtypes.parse(precision)
    target, published = Path(out), all_layouts()[layout]
    single = target.suffix in (*TORCH_SUFFIXES, ".safetensors")
    if not single and published.config is None:
        raise Failure(f"--out {out}: name a file ending in .safetensors, {', '.join(TORCH_SUFFIXES)}", USAGE)
    if target.exists() and not overwrite:
        raise Failure(f"{target} exists; add --overwrite, or choose another --out", WOULD_OVERWRITE)
    path = checkpoint.resolve(name)
    metadata = checkpoint.metadata(path)
    model = metadata["recipe"].get("model")
    if not isinstance(model, dict):
        raise Failure(f"{path}: its recipe names no model", BAD_INPUT)
    state = export_state(layout, model, checkpoint.read_tensors(path), with_config=not single)
    state = {key: dtypes.cast(tensor, dtype) for key, tensor in state.items()}
    if single:
        return _write_file(target, published, state, overwrite)
    size = section(metadata["recipe"], "task").get("size")
    return write_folder(target, published, state, model, metadata["tokenizer"], size)


def export_checkpoint(name: str, out: Path, precision: str, overwrite: bool) -> None:
    """Write the checkpoint `name` to `out` in another precision. Raises CheckpointError, Failure."""
    dtype = dtypes.parse(precision)
    check_target(out, "--out", overwrite)
    path = checkpoint.resolve(name)
    metadata = checkpoint.metadata(path)
    tokenizer = from_state(metadata["tokenizer"]) if metadata["tokenizer"] else None
    tensors = checkpoint.read_tensors(path)
    checkpoint.save(out, tensors, metadata["recipe"], tokenizer, metadata["step"], metadata["samples"], dtype)


def _write(path: Path, value: Any) -> None:
    if path.suffix == ".safetensors":
        write_atomically(path, lambda temporary: save_file(value, temporary, metadata={"format": "pt"}))
    else:
        write_atomically(path, lambda temporary: torch.save(value, temporary))


def _write_file(target: Path, layout: Layout, state: dict[str, Tensor], overwrite: bool) -> list[str]:
    """Write one file; for torch, wrapped as published, and with a side file where the layout has one."""
    if target.suffix == ".safetensors":
        _write(target, state)
        return [str(target)]
    files = [target]
    if layout.side_file:
        pattern, keys = layout.side_file
        files.append(target.with_name(pattern.replace("*", "ViT-L-14")))
        if files[1].exists() and not overwrite:
            raise Failure(f"{files[1]} exists; add --overwrite, or choose another --out", WOULD_OVERWRITE)
        _write(files[1], tuple(state.pop(key) for key in keys))
    _write(target, {layout.wrapper: state} if layout.wrapper else state)
    return [str(file) for file in files]


def write_folder(
    folder: Path, layout: Layout, state: dict, model: dict, tokenizer: dict | None = None, size: int | None = None
) -> list[str]:
    """Write weights, vocabulary and configuration to a folder, or to a folder for each part; returns the files.

    The configuration comes last, so that a broken export does not open. size: of the images, for configurations that
    hold it.
    """
    assert layout.config is not None
    configs = layout.config.write(complete(model))
    places = {prefix: folder / name for prefix, name in layout.files.items()} or {"": folder}
    files = []
    for prefix, place in places.items():
        part = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        config = dict(configs[place.name] if prefix else configs)
        if size and "sample_size" in config:
            config["sample_size"] = size
        texts = vocabulary(from_state(tokenizer)) if tokenizer is not None and not prefix and "text" in model else {}
        if layout.config.file == "config.json" and model["type"] == "clip" and "image" in model:
            texts["preprocessor_config.json"] = json.dumps(preprocessing(model["image"]["size"]), indent=2)
        texts[layout.config.file] = json.dumps(config, indent=2)
        _write(place / layout.config.weights, part)
        files += [place / layout.config.weights, *write_texts(place, texts)]
    return [str(file) for file in files]


def write_texts(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Write text files by name; returns their paths."""
    for name, text in texts.items():
        write_atomically(folder / name, lambda path, text=text: path.write_text(text + "\n", encoding="utf-8"))
    return [folder / name for name in texts]


def vocabulary(tokenizer: Any) -> dict[str, str]:
    """Return the content of a tokenizer's files as transformers reads them, by name."""
    joined = [merge.replace(" ", "") for merge in tokenizer.merges]
    symbols = [*base_symbols(tokenizer.suffix), *joined, *tokenizer.specials]
    ids = {symbol: number for number, symbol in enumerate(symbols)}
    return {"vocab.json": json.dumps(ids), "merges.txt": "\n".join(["#version: 0.2", *tokenizer.merges])}


def preprocessing(size: int) -> dict[str, Any]:
    """Return the content of transformers' preprocessor_config.json for a CLIP of square images of `size` pixels."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "resample": 3,  # bicubic
        "image_mean": list(MEAN),
        "image_std": list(STD),
        **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"), True),
    }
