"""Export an unCLIP as a pipeline of diffusers: UnCLIPPipeline, or without a prior UnCLIPImageVariationPipeline."""

import json
from pathlib import Path
from typing import Any

import torch

from .. import checkpoint, recipe
from ..exits import BAD_INPUT, WOULD_OVERWRITE, Failure
from ..registry import RecipeError
from ..text.loading import from_state
from . import dtypes
from .exporting import preprocessing, vocabulary, write_folder, write_texts
from .layouts import all_layouts
from .layouts.diffusers_upsampler import HALVES
from .networks.hf_clip import LOGIT_SCALE
from .recognition import export_state

FORMAT = "diffusers-unclip"
INDEX = "model_index.json"
STEPS = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "clip_sample": True}
SCHEDULERS = {
    "prior": {"variance_type": "fixed_small_log", "prediction_type": "sample"},
    "decoder": {"variance_type": "learned_range", "prediction_type": "epsilon", "clip_sample_range": 1.0},
    "super_res": {"variance_type": "fixed_small_log", "prediction_type": "epsilon", "clip_sample_range": 1.0},
}
CLASSES = {
    "prior": ("diffusers", "PriorTransformer"),
    "decoder": ("diffusers", "UNet2DConditionModel"),
    "text_proj": ("diffusers.pipelines.deprecated.unclip.text_proj", "UnCLIPTextProjModel"),  # until 0.33: unclip
    "super_res_first": ("diffusers", "UNet2DModel"),
    "super_res_last": ("diffusers", "UNet2DModel"),
    "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
    "feature_extractor": ("transformers", "CLIPImageProcessor"),
}


def export(name: str, out: str, precision: str | None, overwrite: bool) -> list[str]:
    """Write every part of a system as diffusers keeps it; returns the files, the pipeline's index last.

    name: a folder with a system's recipe, or the recipe of one. Raises ConvertError, CheckpointError, RecipeError,
    Failure; what the pipeline cannot hold is refused before anything is written.
    """
    dtype = dtypes.parse(precision)
    folder = Path(out)
    if folder.is_file() or ((folder / INDEX).exists() and not overwrite):
        raise Failure(f"{folder} exists; add --overwrite, or choose another --out", WOULD_OVERWRITE)
    parts = _parts(name)
    prior = parts.get("prior")
    layouts = {"decoder": "diffusers-decoder", "upsampler": "diffusers-upsampler"}
    if prior:
        layouts["prior"] = "diffusers-prior"
    for dry_run in (True, False):  # first on shapes only, to refuse early
        files = []
        for part, layout in layouts.items():
            place = folder / "prior" if part == "prior" else folder
            files += _write_part(str(parts[part]), layout, place, dtype, dry_run)
        files += _write_clip(str(parts["clip"]), folder, dtype, bool(prior), dry_run)
    limit: Any = checkpoint.load_meta(str(prior)).clip_sample_range if prior else None
    return [*files, *_write_index(folder, limit)]


def _parts(name: str) -> dict[str, Any]:
    """The parts of an unCLIP that the pipeline can hold. Raises RecipeError, Failure."""
    file = recipe.of_folder(name)
    try:
        system = recipe.load(str(file or name), "systems")
    except RecipeError as error:
        raise RecipeError(f"{error}; {FORMAT} takes a whole system, its folder or its recipe") from None
    parts = recipe.section(recipe.resolve_parts(system, (file or Path(name)).parent), "parts")
    if recipe.type_of(system, "system") != "unclip":
        raise Failure(f"{name}: {FORMAT} holds a system of type unclip", BAD_INPUT)
    missing = [part for part in ("decoder", "upsampler", "clip") if not parts.get(part)]
    if missing or parts.get("upsampler_2"):
        problem = f"no {' and no '.join(missing)}" if missing else "a second upsampler"
        raise Failure(f"{name}: {problem}; diffusers' pipeline has a decoder, one upsampler and a CLIP", BAD_INPUT)
    return parts


def _read(name: str, dry_run: bool) -> tuple[dict, dict[str, Any], dict[str, Any]]:
    """The model node of a checkpoint, its tensors, on the meta device for a dry run, and its metadata."""
    path = checkpoint.resolve(name)
    metadata = checkpoint.metadata(path)
    if dry_run:
        state = checkpoint.load_meta(name).model.state_dict()  # type: ignore[union-attr]
    else:
        state = checkpoint.read_tensors(path)
    return metadata["recipe"]["model"], state, metadata


def _write_part(name: str, layout: str, folder: Path, dtype: torch.dtype | None, dry_run: bool) -> list[str]:
    model, state, metadata = _read(name, dry_run)
    if layout == "diffusers-upsampler" and model["type"] == "unet":  # one network for all steps is written twice
        state = {f"{half}.{key}": tensor for half in HALVES for key, tensor in state.items()}
        model = {"type": "two-stage-unet", **dict.fromkeys(HALVES, model)}
    published = export_state(layout, model, state, with_config=True)
    if dry_run:
        return []
    published = {key: dtypes.cast(tensor, dtype) for key, tensor in published.items()}
    size = recipe.section(metadata["recipe"], "task").get("size")
    return write_folder(folder, all_layouts()[layout], published, model, size=size)


def _write_clip(name: str, folder: Path, dtype: torch.dtype | None, prior: bool, dry_run: bool) -> list[str]:
    """The text encoder and its vocabulary; without a prior, whose embeddings it replaces, the image encoder too."""
    model, state, metadata = _read(name, dry_run)
    towers = {"text": "text_encoder"} | ({} if prior else {"image": "image_encoder"})
    files = []
    for tower, place in towers.items():
        if tower not in model:
            raise Failure(f"{name}: has no {tower} tower, which the pipeline needs", BAD_INPUT)
        prefixes = ("text.", "text_projection.") if tower == "text" else ("visual.", "image_projection.")
        node = {"type": "clip", "embed_dim": model["embed_dim"], tower: model[tower], "fixed_logit_scale": LOGIT_SCALE}
        part = {key: dtypes.cast(tensor, dtype) for key, tensor in state.items() if key.startswith(prefixes)}
        published = export_state("hf-clip", node, part, with_config=True)
        if not dry_run:
            files += write_folder(folder / place, all_layouts()["hf-clip"], published, node)
    if dry_run:
        return []
    if not prior:
        texts = {"preprocessor_config.json": json.dumps(preprocessing(model["image"]["size"]), indent=2)}
        files += map(str, write_texts(folder / "feature_extractor", texts))
    tokenizer = from_state(metadata["tokenizer"])
    texts = vocabulary(tokenizer) | {"tokenizer_config.json": json.dumps(_tokenizer_config(tokenizer, model), indent=2)}
    return files + [str(file) for file in write_texts(folder / "tokenizer", texts)]


def _tokenizer_config(tokenizer: Any, model: dict) -> dict[str, Any]:
    start, end = tokenizer.specials
    return {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": model["text"]["context_length"],
        "bos_token": start,
        "eos_token": end,
        "unk_token": end,
        "pad_token": "!",  # id 0, which pads here
    }


def _write_index(folder: Path, limit: float | None) -> list[str]:
    """Write the schedulers and the index. limit: of the prior's samples, None without a prior."""
    prior = limit is not None
    used = ["decoder", "text_proj", "super_res_first", "super_res_last", "text_encoder", "tokenizer"]
    used += ["prior"] if prior else ["image_encoder", "feature_extractor"]
    schedulers = [name for name in SCHEDULERS if prior or name != "prior"]
    files = []
    for name in schedulers:
        content = {"_class_name": "UnCLIPScheduler", **STEPS, **SCHEDULERS[name]}
        if name == "prior":
            content["clip_sample_range"] = limit
        files += write_texts(folder / f"{name}_scheduler", {"scheduler_config.json": json.dumps(content, indent=2)})
    index: dict[str, Any] = {"_class_name": "UnCLIPPipeline" if prior else "UnCLIPImageVariationPipeline"}
    index |= {name: list(CLASSES[name]) for name in used}
    index |= {f"{name}_scheduler": ["diffusers", "UnCLIPScheduler"] for name in schedulers}
    return [str(file) for file in [*files, *write_texts(folder, {INDEX: json.dumps(index, indent=2)})]]
