"""Import a folder of published models as a system: every part, and the recipe that samples as published."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import checkpoint, recipe
from ..exits import BAD_INPUT, USAGE, Failure
from ..files import write_atomically
from ..registry import RecipeError, suggest
from .files import hub
from .files.opening import Weights, models_in, open_weights, read_json
from .importing import ImportOptions, ImportPlan, Log, check_free, plan_import, write_checkpoint
from .layouts import all_layouts
from .recognition import make_recipe

INPAINT = "inpaint"  # before the names of inpainting parts, and the name of their recipe
UNCLIP = {
    **{"karlo-prior": "prior", "karlo-decoder": "decoder", "karlo-upsampler": "upsampler"},
    **{"diffusers-prior": "prior", "diffusers-decoder": "decoder", "diffusers-upsampler": "upsampler"},
    **dict.fromkeys(("openai-clip", "open-clip", "hf-clip", "diffusers-clip"), "clip"),
}  # parts by layout
REQUIRED = {"unclip": ("decoder", "clip"), "glide": ("decoder",)}
# The settings that each was published with: those of Karlo and of diffusers' pipeline of it, and of GLIDE's notebooks.
KARLO = {
    **{"prior_steps": "25", "prior_guidance_scale": 4.0, "prior_samples": 1},
    **{"steps": "50", "sampler": "ddpm", "guidance_scale": 8.0},
    **{"up_steps": "7", "up_sampler": "ddpm", "up_temperature": 1.0},
}
GLIDE = {
    **{"steps": "100", "sampler": "ddpm", "guidance_scale": 3.0},
    **{"up_steps": "fast27", "up_sampler": "ddim", "up_temperature": 0.997},
}
GLIDE_INPAINT = GLIDE | {"guidance_scale": 5.0, "up_sampler": "ddpm"}


def import_system(source: str, out: str, options: ImportOptions, log: Log) -> dict[str, Any]:
    """Import every model of a folder into folders of `out`, and write the recipe of their system there.

    source: a folder, or a repository of the Hugging Face hub. Returns a description of what was written. All is checked
    before anything is written; the recipe is written last. Raises ConvertError, TextError, CheckpointError,
    RecipeError, Failure.
    """
    options.check()
    if out.endswith(".safetensors"):
        raise Failure(f"--out {out}: a system is a folder; name one", USAGE)
    target = Path(out)
    check_free(target / recipe.IN_FOLDER, options.overwrite)
    folder = Path(hub.fetch_source(source, log, system=True))
    if not folder.is_dir():
        what = "a file" if folder.exists() else "missing"
        raise Failure(f"{folder}: --system imports a folder, and this is {what}", BAD_INPUT)
    plans = _plan_parts(folder, target, options, log)
    recipes = compose(folder, plans)
    for plan in plans.values():
        check_free(plan.target, options.overwrite)
    parts, is_new = {}, not target.exists()
    try:
        for part, plan in plans.items():
            parts[part] = write_checkpoint(plan)
            log(f"{part}: {parts[part]['layout']}, {parts[part]['num_parameters'] / 1e6:.1f} million parameters")
        for name, content in recipes.items():
            write_atomically(target / name, lambda path, content=content: path.write_text(content, encoding="utf-8"))
    except BaseException:
        if is_new:
            shutil.rmtree(target, ignore_errors=True)
        raise
    return {"path": str(target), "parts": parts, "recipes": [str(target / name) for name in recipes]}


def _plan_parts(folder: Path, target: Path, options: ImportOptions, log: Log) -> dict[str, ImportPlan]:
    """Plan the import of every part; options.overrides begin with the name of a part."""
    weights: dict[str, Weights] = {}
    for path in candidates(folder):
        opened = open_weights(path)
        part = part_of(opened)
        if part is None:
            raise Failure(f"{path}: {opened.layout.name} is part of no system; move it elsewhere", BAD_INPUT)
        if part in weights:
            raise Failure(
                f"{opened.path} and {weights[part].path} are both the system's {part}; keep one of them", BAD_INPUT
            )
        weights[part] = opened
    overrides = split_overrides(options.overrides, list(weights))
    plans = {
        part: plan_import(opened, target / part / checkpoint.FILE, replace(options, overrides=overrides[part]), log)
        for part, opened in weights.items()
    }
    if "prior" in plans:
        plans["prior"] = _with_clip_sample_range(plans["prior"], folder, overrides["prior"])
    return plans


def split_overrides(words: Any, parts: list[str]) -> dict[str, list[str]]:
    """Return the overrides of each part from words such as `decoder.model.head_dim=32`. Raises RecipeError."""
    split: dict[str, list[str]] = {part: [] for part in parts}
    for word in words:
        part, _, override = word.partition(".")
        if part not in split or not override:
            raise RecipeError(
                f"{word}: with --system, begin with the name of a part, such as {parts[0]}.model.head_dim=32"
                f"{suggest(part, parts)}"
            )
        split[part].append(override)
    return split


def candidates(folder: Path) -> list[Path]:
    """Return the models in a folder, those in several files or folders once. Raises Failure when there are none."""
    paths = models_in(folder)
    for layout in all_layouts().values():
        places = [folder / name for name in layout.files.values()]
        if places and all(place in paths for place in places):
            paths = [path for path in paths if path not in places[1:]]
    if not paths:
        raise Failure(f"{folder}: no weights in this folder, nor in its subfolders", BAD_INPUT)
    return paths


def part_of(weights: Weights) -> str | None:
    """Return the name of the part of a system that weights are; GLIDE's inpainting models have their own."""
    layout = weights.layout.name
    if layout == "openai-noised-clip":
        return "noised_clip"
    if layout != "openai-glide":
        return UNCLIP.get(layout)
    conditions = make_recipe(weights.layout, weights.state)["model"]["conditions"]
    part = "upsampler" if "low_res" in conditions else "decoder"
    return f"{INPAINT}_{part}" if "inpaint" in conditions else part


def compose(folder: Path, plans: Mapping[str, ImportPlan]) -> dict[str, str]:
    """Return the recipes of a system by file name. Raises Failure for parts of two systems or an incomplete one."""
    kinds = {"unclip" if plan.layout.name in UNCLIP else "glide" for plan in plans.values()}
    if len(kinds) > 1:
        parts = ", ".join(f"{part} ({plan.layout.name})" for part, plan in plans.items())
        raise Failure(f"{folder}: parts of two systems: {parts}", BAD_INPUT)
    kind = kinds.pop()
    missing = [part for part in REQUIRED[kind] if part not in plans and f"{INPAINT}_{part}" not in plans]
    if missing:
        hint = "; Karlo's is OpenAI's ViT-L-14.pt" if "clip" in missing else ""
        raise Failure(f"{folder}: no {' and no '.join(missing)} among its weights{hint}", BAD_INPUT)
    if kind == "unclip":
        return {recipe.IN_FOLDER: _to_yaml("Karlo", folder, _unclip(plans))}
    plain = {part: f"./{part}" for part in plans if not part.startswith(INPAINT)}
    inpainting = {part.removeprefix(f"{INPAINT}_"): f"./{part}" for part in plans if part.startswith(INPAINT)}
    recipes = {}
    if "decoder" in plain:
        recipes[recipe.IN_FOLDER] = {"system": {"type": "glide"}, "parts": plain, "sample": GLIDE}
    if "decoder" in inpainting:
        guides = {part: path for part, path in plain.items() if part == "noised_clip"}
        name = f"{INPAINT}.yaml" if recipes else recipe.IN_FOLDER
        recipes[name] = {"system": {"type": "glide"}, "parts": inpainting | guides, "sample": GLIDE_INPAINT}
    return {name: _to_yaml("GLIDE", folder, content) for name, content in recipes.items()}


def _unclip(plans: Mapping[str, ImportPlan]) -> dict[str, Any]:
    parts = {part: f"./{part}" for part in ("prior", "decoder", "upsampler", "clip") if part in plans}
    if {"image", "text"} <= plans["clip"].model.keys():
        parts["reranker"] = "./clip"
    steps = {"steps": "25"} if plans["decoder"].layout.name.startswith("diffusers") else {}  # of that pipeline
    return {"system": {"type": "unclip"}, "parts": parts, "sample": KARLO | steps}


def _with_clip_sample_range(prior: ImportPlan, folder: Path, overrides: list[str]) -> ImportPlan:
    """The prior with the range of its samples that the scheduler of a pipeline's folder gives."""
    config = read_json(folder / "prior_scheduler" / "scheduler_config.json") or {}
    limit = config.get("clip_sample_range")
    if not isinstance(limit, int | float) or any(word.startswith("task.clip_sample_range=") for word in overrides):
        return prior
    return replace(prior, recipe=prior.recipe | {"task": prior.recipe["task"] | {"clip_sample_range": float(limit)}})


def _to_yaml(name: str, folder: Path, content: dict[str, Any]) -> str:
    lines = [
        f"# {name}, imported from {folder.name}/, with the steps, samplers and guidance scales of its publication.",
        "# Parts that begin with ./ are in this file's folder.",
    ]
    return "\n".join([*lines, recipe.to_yaml(content)])
