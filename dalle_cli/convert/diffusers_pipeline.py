"""A system of ours as a pipeline of diffusers: UnCLIPPipeline, or without a prior UnCLIPImageVariationPipeline."""

import json
from pathlib import Path
from typing import Any

from .. import checkpoint, recipe
from ..exits import BAD_INPUT, USAGE, WOULD_OVERWRITE, Failure
from ..registry import RecipeError
from ..text.loading import from_state
from . import native
from .exporting import preprocessing, typed, vocabulary, write_folder, write_texts
from .layouts import all_layouts
from .layouts.diffusers_upsampler import HALVES
from .networks.hf_clip import SCALE
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
    """Write every part of a system as diffusers keeps it; returns the files, the pipeline's own last.

    name: a folder with a system's recipe, or the recipe of one. Raises ConvertError, CheckpointError, RecipeError,
    Failure; what a part has no place for is found before anything is written.
    """
    if precision is not None and precision not in native.TYPES:
        raise Failure(f"--precision {precision}: choose {', '.join(native.TYPES)}", USAGE)
    folder = Path(out)
    if folder.is_file() or ((folder / INDEX).exists() and not overwrite):
        raise Failure(f"{folder} is there already; add --overwrite, or choose another --out", WOULD_OVERWRITE)
    file = recipe.of_folder(name)
    try:
        system = recipe.load(str(file or name), "systems")
    except RecipeError as error:
        raise RecipeError(f"{error}; {FORMAT} takes a whole system, its folder or its recipe") from None
    parts = recipe.section(recipe.beside(system, (file or Path(name)).parent), "parts")
    if recipe.type_of(system, "system") != "unclip":
        raise Failure(f"{name}: {FORMAT} holds a system of type unclip", BAD_INPUT)
    lacking = [part for part in ("decoder", "upsampler", "clip") if not parts.get(part)]
    if lacking or parts.get("upsampler_2"):
        told = f"no {' and no '.join(lacking)}" if lacking else "a second upsampler"
        raise Failure(f"{name}: {told}; diffusers' pipeline has a decoder, one upsampler and a CLIP", BAD_INPUT)
    layouts = {"decoder": "diffusers-decoder", "upsampler": "diffusers-upsampler"}
    if parts.get("prior"):
        layouts["prior"] = "diffusers-prior"
    for dry in (True, False):  # first whether all of it has a place, on shapes alone
        files = []
        for part, layout in layouts.items():
            files += _write_part(
                str(parts[part]), layout, folder / "prior" if part == "prior" else folder, precision, dry
            )
        files += _write_clip(str(parts["clip"]), folder, precision, bool(parts.get("prior")), dry)
    clamp = checkpoint.shapes(str(parts["prior"])).clip_sample_range if parts.get("prior") else None  # type: ignore[union-attr]
    return [*files, *_write_index(folder, clamp)]


def _read(name: str, dry: bool) -> tuple[dict, dict[str, Any], dict[str, Any]]:
    """The model node of a checkpoint, its tensors, on the meta device for a dry run, and its metadata."""
    path = checkpoint.resolve(name)
    found = checkpoint.metadata(path)
    if dry:
        return found["recipe"]["model"], checkpoint.shapes(name).model.state_dict(), found  # type: ignore[union-attr]
    return found["recipe"]["model"], checkpoint.read_tensors(path), found


def _write_part(name: str, layout: str, folder: Path, precision: str | None, dry: bool) -> list[str]:
    model, state, found = _read(name, dry)
    if layout == "diffusers-upsampler" and model["type"] == "unet":  # one network for all steps stands in both places
        state = {f"{half}.{key}": tensor for half in HALVES for key, tensor in state.items()}
        model = {"type": "two-stage-unet", **dict.fromkeys(HALVES, model)}
    written = export_state(layout, model, state, configured=True)
    if dry:
        return []
    dtype = native.TYPES[precision] if precision else None
    size = recipe.section(found["recipe"], "task").get("size")
    return write_folder(
        folder, all_layouts()[layout], {key: typed(one, dtype) for key, one in written.items()}, model, size=size
    )


def _write_clip(name: str, folder: Path, precision: str | None, prior: bool, dry: bool) -> list[str]:
    """The text encoder and its vocabulary; without a prior, whose embeddings it stands for, the image encoder too."""
    model, state, found = _read(name, dry)
    towers = {"text": "text_encoder"} | ({} if prior else {"image": "image_encoder"})
    dtype = native.TYPES[precision] if precision else None
    files = []
    for tower, place in towers.items():
        if tower not in model:
            raise Failure(f"{name}: has no {tower} tower, which the pipeline needs", BAD_INPUT)
        before = ("text.", "text_projection.") if tower == "text" else ("visual.", "image_projection.")
        node = {"type": "clip", "embed_dim": model["embed_dim"], tower: model[tower], "fixed_logit_scale": SCALE}
        own = {key: typed(tensor, dtype) for key, tensor in state.items() if key.startswith(before)}
        written = export_state("hf-clip", node, own, configured=True)
        if not dry:
            files += write_folder(folder / place, all_layouts()["hf-clip"], written, node)
    if dry:
        return []
    if not prior:
        texts = {"preprocessor_config.json": json.dumps(preprocessing(model["image"]["size"]), indent=2)}
        files += map(str, write_texts(folder / "feature_extractor", texts))
    tokenizer = from_state(found["tokenizer"])
    texts = vocabulary(tokenizer) | {"tokenizer_config.json": json.dumps(_tokenizing(tokenizer, model), indent=2)}
    return files + [str(file) for file in write_texts(folder / "tokenizer", texts)]


def _tokenizing(tokenizer: Any, model: dict) -> dict[str, Any]:
    start, end = tokenizer.specials
    return {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": model["text"]["context_length"],
        "bos_token": start,
        "eos_token": end,
        "unk_token": end,
        "pad_token": "!",  # id 0, which stands for padding here
    }


def _write_index(folder: Path, clamp: Any) -> list[str]:
    """clamp: of the prior, None where there is none."""
    prior = clamp is not None
    used = ["decoder", "text_proj", "super_res_first", "super_res_last", "text_encoder", "tokenizer"]
    used += ["prior"] if prior else ["image_encoder", "feature_extractor"]
    schedulers = [name for name in SCHEDULERS if prior or name != "prior"]
    files = []
    for name in schedulers:
        content = {"_class_name": "UnCLIPScheduler", **STEPS, **SCHEDULERS[name]}
        if name == "prior":
            content["clip_sample_range"] = clamp
        files += write_texts(folder / f"{name}_scheduler", {"scheduler_config.json": json.dumps(content, indent=2)})
    index: dict[str, Any] = {"_class_name": "UnCLIPPipeline" if prior else "UnCLIPImageVariationPipeline"}
    index |= {name: list(CLASSES[name]) for name in used}
    index |= {f"{name}_scheduler": ["diffusers", "UnCLIPScheduler"] for name in schedulers}
    return [str(file) for file in [*files, *write_texts(folder, {INDEX: json.dumps(index, indent=2)})]]
