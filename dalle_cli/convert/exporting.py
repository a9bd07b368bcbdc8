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
from ..registry import suggest
from ..text import from_state
from ..text.bpe import base_symbols
from . import completed, native, sources, write
from .keys import Source

TORCH = (".pt", ".pth", ".bin", ".ckpt")
NATIVE = "dalle"


def export(name: str, layout: str, out: str, precision: str | None, overwrite: bool) -> list[str]:
    """Write the checkpoint `name` in a layout; returns the files.

    layout: `dalle` for a checkpoint of ours, in float16 unless told; else one of `sources()`, in the types that the
    weights have unless told. out: a file (.safetensors, or one for torch.load), or the folder of a layout that has a
    configuration. Raises CheckpointError, ConvertError, Failure.
    """
    known = {NATIVE, *sources()}
    if layout not in known:
        raise Failure(f"--format {layout}: no such layout{suggest(layout, known)}", USAGE)
    if layout == NATIVE:
        native.export(name, Path(out), precision or "float16", overwrite)
        return [out]
    if precision is not None and precision not in native.TYPES:
        raise Failure(f"--precision {precision}: choose {', '.join(native.TYPES)}", USAGE)
    target, source = Path(out), sources()[layout]
    single = target.suffix in (*TORCH, ".safetensors")
    if not single and source.config is None:
        raise Failure(f"--out {out}: name a file ending in .safetensors, {', '.join(TORCH)}", USAGE)
    if target.exists() and not overwrite:
        raise Failure(f"{target} exists; add --overwrite, or choose another --out", WOULD_OVERWRITE)
    path = checkpoint.resolve(name)
    found = checkpoint.metadata(path)
    if not isinstance(found["recipe"].get("model"), dict):
        raise Failure(f"{path}: its recipe names no model", BAD_INPUT)
    model = completed(found["recipe"]["model"])
    state = write(layout, model, checkpoint.read_tensors(path), configured=not single)
    dtype = native.TYPES[precision] if precision else None
    state = {key: _typed(tensor, dtype) for key, tensor in state.items()}
    if single:
        _write(target, state)
        return [out]
    return _write_folder(target, source, state, model, found["tokenizer"])


def _typed(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return (tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor).contiguous()


def _write(path: Path, state: dict[str, Tensor]) -> None:
    if path.suffix == ".safetensors":
        write_atomically(path, lambda temporary: save_file(state, temporary, metadata={"format": "pt"}))
    else:
        write_atomically(path, lambda temporary: torch.save(state, temporary))


def _write_folder(folder: Path, source: Source, state: dict, model: dict, tokenizer: dict | None) -> list[str]:
    """The weights, the vocabulary as transformers reads it, and last the configuration, without which nothing opens."""
    assert source.config is not None
    texts = _vocabulary(from_state(tokenizer)) if tokenizer is not None else {}
    if source.config.file == "config.json":
        texts["preprocessor_config.json"] = json.dumps(_preprocessing(model["image"]["size"]), indent=2)
    texts[source.config.file] = json.dumps(source.config.write(model), indent=2)
    _write(folder / source.config.weights, state)
    for name, text in texts.items():
        write_atomically(folder / name, lambda path, text=text: path.write_text(text + "\n", encoding="utf-8"))
    return [str(folder / name) for name in (source.config.weights, *texts)]


def _vocabulary(tokenizer: Any) -> dict[str, str]:
    joined = [merge.replace(" ", "") for merge in tokenizer.merges]
    symbols = [*base_symbols(tokenizer.suffix), *joined, *tokenizer.specials]
    ids = {symbol: number for number, symbol in enumerate(symbols)}
    return {"vocab.json": json.dumps(ids), "merges.txt": "\n".join(["#version: 0.2", *tokenizer.merges])}


def _preprocessing(size: int) -> dict[str, Any]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "resample": 3,  # bicubic
        "image_mean": list(MEAN),
        "image_std": list(STD),
        **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"), True),
    }
