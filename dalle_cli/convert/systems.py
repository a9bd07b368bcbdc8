"""A folder of published models to a system of ours: every part imported, and the recipe that draws as published."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import checkpoint, recipe
from ..exits import BAD_INPUT, USAGE, Failure
from ..files import write_atomically
from .files import hub
from .files.opening import json_in, models_in
from .importing import Plan, carry, check_free, check_options, plan
from .layouts import all_layouts

INPAINT = "inpaint"  # before the names of parts that inpaint, and of their recipe
UNCLIP = {
    **{"karlo-prior": "prior", "karlo-decoder": "decoder", "karlo-upsampler": "upsampler"},
    **{"diffusers-prior": "prior", "diffusers-decoder": "decoder", "diffusers-upsampler": "upsampler"},
    **dict.fromkeys(("openai-clip", "open-clip", "hf-clip", "diffusers-clip"), "clip"),
}
WANTED = {"unclip": ("decoder", "clip"), "glide": ("decoder",)}
# What each was published to draw with: Karlo's sampler and diffusers' pipeline of it, and GLIDE's notebooks.
KARLO = {
    **{
        "prior_steps": "25",
        "prior_guidance_scale": 4.0,
        "prior_samples": 1,
        "steps": "50",
        "sampler": "ddpm",
        "guidance_scale": 8.0,
    },
    **{"up_steps": "7", "up_sampler": "ddpm", "up_temperature": 1.0},
}
GLIDE = {
    **{"steps": "100", "sampler": "ddpm", "guidance_scale": 3.0, "up_steps": "fast27", "up_sampler": "ddim"},
    **{"up_temperature": 0.997},
}
GLIDE_INPAINT = GLIDE | {"guidance_scale": 5.0, "up_sampler": "ddpm"}


def import_system(
    source: str, out: str, vocab: str | None, precision: str | None, overwrite: bool, say: Callable[[str], Any]
) -> dict[str, Any]:
    """Import every model of a folder into folders of `out`, and write the recipe of their system there.

    source: a folder, or a repository of the hub. Returns what was made. All is checked before anything is written;
    the recipe is written last. Raises ConvertError, TextError, CheckpointError, Failure.
    """
    check_options(precision, None)
    if out.endswith(".safetensors"):
        raise Failure(f"--out {out}: a system is a folder; name one", USAGE)
    target = Path(out)
    check_free(target / recipe.IN_FOLDER, overwrite)
    folder = Path(hub.fetched(source, say, system=True))
    if not folder.is_dir():
        raise Failure(
            f"{folder}: --system imports a folder, and this is {'a file' if folder.exists() else 'none'}", BAD_INPUT
        )
    plans: dict[str, Plan] = {}
    for path in candidates(folder):
        made = plan(str(path), target / checkpoint.FILE, vocab, precision, None, say)
        part = part_of(made.layout.name, made.model)
        if part is None:
            raise Failure(f"{path}: {made.layout.name} is part of no system; put it elsewhere", BAD_INPUT)
        if part in plans:
            raise Failure(f"{path} and {plans[part].source} are both the system's {part}; keep one of them", BAD_INPUT)
        plans[part] = made.placed(target / part / checkpoint.FILE)
    if "prior" in plans:
        plans["prior"] = _clamped(plans["prior"], folder)
    recipes = compose(folder, plans)
    for one in plans.values():
        check_free(one.target, overwrite)
    told, new = {}, not target.exists()
    try:
        for part, one in plans.items():
            told[part] = carry(one)
            say(f"{part}: {told[part]['layout']}, {told[part]['values'] / 1e6:.1f} million values")
        for name, content in recipes.items():
            write_atomically(target / name, lambda path, content=content: path.write_text(content, encoding="utf-8"))
    except BaseException:
        if new:
            shutil.rmtree(target, ignore_errors=True)
        raise
    return {"path": str(target), "parts": told, "recipes": [str(target / name) for name in recipes]}


def candidates(folder: Path) -> list[Path]:
    """The models in a folder, those in several files or folders once. Raises Failure when there are none."""
    found = models_in(folder)
    for one in all_layouts().values():
        places = [folder / name for name in one.files.values()]
        if places and all(place in found for place in places):
            found = [place for place in found if place not in places[1:]]
    if not found:
        raise Failure(f"{folder}: no weights in this folder, nor in those in it", BAD_INPUT)
    return found


def part_of(layout: str, model: Mapping) -> str | None:
    """What a model is in its system, GLIDE's that inpaint under names of their own."""
    if layout == "openai-noised-clip":
        return "noised_clip"
    if layout != "openai-glide":
        return UNCLIP.get(layout)
    part = "upsampler" if "low_res" in model["conditions"] else "decoder"
    return f"{INPAINT}_{part}" if "inpaint" in model["conditions"] else part


def compose(folder: Path, plans: Mapping[str, Plan]) -> dict[str, str]:
    """The recipes of a system by file name. Raises Failure when parts of two systems, or not all of one, are there."""
    kinds = {"unclip" if plan.layout.name in UNCLIP else "glide" for plan in plans.values()}
    if len(kinds) > 1:
        told = ", ".join(f"{part} ({plan.layout.name})" for part, plan in plans.items())
        raise Failure(f"{folder}: parts of two systems: {told}", BAD_INPUT)
    kind = kinds.pop()
    lacking = [part for part in WANTED[kind] if part not in plans and f"{INPAINT}_{part}" not in plans]
    if lacking:
        hint = "; Karlo's is OpenAI's ViT-L-14.pt" if "clip" in lacking else ""
        raise Failure(f"{folder}: no {' and no '.join(lacking)} among its weights{hint}", BAD_INPUT)
    if kind == "unclip":
        return {recipe.IN_FOLDER: _written("Karlo", folder, _unclip(plans))}
    plain = {part: f"./{part}" for part in plans if not part.startswith(INPAINT)}
    filling = {part.removeprefix(f"{INPAINT}_"): f"./{part}" for part in plans if part.startswith(INPAINT)}
    made = {}
    if "decoder" in plain:
        made[recipe.IN_FOLDER] = {"system": {"type": "glide"}, "parts": plain, "sample": GLIDE}
    if "decoder" in filling:
        guides = {part: where for part, where in plain.items() if part == "noised_clip"}
        name = f"{INPAINT}.yaml" if made else recipe.IN_FOLDER
        made[name] = {"system": {"type": "glide"}, "parts": filling | guides, "sample": GLIDE_INPAINT}
    return {name: _written("GLIDE", folder, content) for name, content in made.items()}


def _unclip(plans: Mapping[str, Plan]) -> dict[str, Any]:
    parts = {part: f"./{part}" for part in ("prior", "decoder", "upsampler", "clip") if part in plans}
    if {"image", "text"} <= plans["clip"].model.keys():
        parts["reranker"] = "./clip"  # it can choose among candidates too
    steps = {"steps": "25"} if plans["decoder"].layout.name.startswith("diffusers") else {}  # of that pipeline
    return {"system": {"type": "unclip"}, "parts": parts, "sample": KARLO | steps}


def _clamped(prior: Plan, folder: Path) -> Plan:
    """The prior with the clamp that a pipeline's folder tells of its scheduler."""
    told = (json_in(folder / "prior_scheduler" / "scheduler_config.json") or {}).get("clip_sample_range")
    if not isinstance(told, int | float):
        return prior
    return replace(prior, recipe=prior.recipe | {"task": prior.recipe["task"] | {"clip_sample_range": float(told)}})


def _written(name: str, folder: Path, content: dict[str, Any]) -> str:
    lines = [
        f"# {name}, imported from {folder.name}/, with the steps, samplers and scales that it was published with.",
        "# Parts that begin with ./ lie beside this file.",
    ]
    return "\n".join([*lines, recipe.to_yaml(content)])
