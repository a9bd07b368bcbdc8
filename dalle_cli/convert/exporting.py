"""Our checkpoints in a published layout: one file, or a folder as open_clip and transformers open it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from .. import checkpoint
from ..exits import BAD_INPUT, USAGE, WOULD_OVERWRITE, Failure
from ..files import write_atomically
from ..models.clip import MEAN, STD
from ..recipe import section
from ..registry import suggest
from ..text.bpe import base_symbols
from ..text.loading import from_state
from . import native
from .layout import Layout
from .layouts import all_layouts
from .recognition import completed, export_state

TORCH = (".pt", ".pth", ".bin", ".ckpt")
NATIVE = "dalle"


def export(name: str, layout: str, out: str, precision: str | None, overwrite: bool) -> list[str]:
    """Write the checkpoint `name` in a layout; returns the files.

    layout: `dalle` for a checkpoint of ours, in float16 unless told; else one of `all_layouts()`, in the types that the
    weights have unless told. out: a file (.safetensors, or one for torch.load), or the folder of a layout that has a
    configuration. Raises CheckpointError, ConvertError, Failure.
    """
    known = {NATIVE, *all_layouts()}
    if layout not in known:
        raise Failure(f"--format {layout}: no such layout{suggest(layout, known)}", USAGE)
    if layout == NATIVE:
        native.export(name, Path(out), precision or "float16", overwrite)
        return [out]
    if precision is not None and precision not in native.TYPES:
        raise Failure(f"--precision {precision}: choose {', '.join(native.TYPES)}", USAGE)
    target, source = Path(out), all_layouts()[layout]
    single = target.suffix in (*TORCH, ".safetensors")
    if not single and source.config is None:
        raise Failure(f"--out {out}: name a file ending in .safetensors, {', '.join(TORCH)}", USAGE)
    if target.exists() and not overwrite:
        raise Failure(f"{target} exists; add --overwrite, or choose another --out", WOULD_OVERWRITE)
    path = checkpoint.resolve(name)
    found = checkpoint.metadata(path)
    if not isinstance(found["recipe"].get("model"), dict):
        raise Failure(f"{path}: its recipe names no model", BAD_INPUT)
    model, dtype = found["recipe"]["model"], native.TYPES[precision] if precision else None
    state = export_state(layout, model, checkpoint.read_tensors(path), configured=not single)
    state = {key: typed(tensor, dtype) for key, tensor in state.items()}
    if single:
        return _write_file(target, source, state, overwrite)
    size = section(found["recipe"], "task").get("size")
    return write_folder(target, source, state, model, found["tokenizer"], size)


def typed(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return (tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor).contiguous()


def _write(path: Path, value: Any) -> None:
    if path.suffix == ".safetensors":
        write_atomically(path, lambda temporary: save_file(value, temporary, metadata={"format": "pt"}))
    else:
        write_atomically(path, lambda temporary: torch.save(value, temporary))


def _write_file(target: Path, source: Layout, state: dict[str, Tensor], overwrite: bool) -> list[str]:
    """One file, as published where it is one of torch: wrapped, and with what belongs in a file of its own in that."""
    if target.suffix == ".safetensors":
        _write(target, state)
        return [str(target)]
    files = [target]
    if source.side_file:
        pattern, keys = source.side_file
        files.append(target.with_name(pattern.replace("*", "ViT-L-14")))
        if files[1].exists() and not overwrite:
            raise Failure(f"{files[1]} exists; add --overwrite, or choose another --out", WOULD_OVERWRITE)
        _write(files[1], tuple(state.pop(key) for key in keys))
    _write(target, {source.wrapper: state} if source.wrapper else state)
    return [str(file) for file in files]


def write_folder(
    folder: Path, source: Layout, state: dict, model: dict, tokenizer: dict | None = None, size: int | None = None
) -> list[str]:
    """The weights, the vocabulary as transformers reads it, and last the configuration, without which nothing opens.

    A layout in several folders has weights and a configuration in each. size: of pictures, where those are told it.
    """
    assert source.config is not None
    configs = source.config.write(completed(model))
    parts = {prefix: folder / name for prefix, name in source.files.items()} or {"": folder}
    files = []
    for prefix, place in parts.items():
        own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        config = dict(configs[place.name] if prefix else configs)
        if size and "sample_size" in config:
            config["sample_size"] = size
        texts = vocabulary(from_state(tokenizer)) if tokenizer is not None and not prefix and "text" in model else {}
        if source.config.file == "config.json" and model["type"] == "clip" and "image" in model:
            texts["preprocessor_config.json"] = json.dumps(preprocessing(model["image"]["size"]), indent=2)
        texts[source.config.file] = json.dumps(config, indent=2)
        _write(place / source.config.weights, own)
        files += [place / source.config.weights, *write_texts(place, texts)]
    return [str(file) for file in files]


def write_texts(folder: Path, texts: dict[str, str]) -> list[Path]:
    for name, text in texts.items():
        write_atomically(folder / name, lambda path, text=text: path.write_text(text + "\n", encoding="utf-8"))
    return [folder / name for name in texts]


def vocabulary(tokenizer: Any) -> dict[str, str]:
    joined = [merge.replace(" ", "") for merge in tokenizer.merges]
    symbols = [*base_symbols(tokenizer.suffix), *joined, *tokenizer.specials]
    ids = {symbol: number for number, symbol in enumerate(symbols)}
    return {"vocab.json": json.dumps(ids), "merges.txt": "\n".join(["#version: 0.2", *tokenizer.merges])}


def preprocessing(size: int) -> dict[str, Any]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "resample": 3,  # bicubic
        "image_mean": list(MEAN),
        "image_std": list(STD),
        **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"), True),
    }
