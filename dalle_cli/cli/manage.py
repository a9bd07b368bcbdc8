"""Commands that list what there is: recipes, show, env."""

import json
import os
from typing import Annotated, Any

import typer

from ..console import align, log, print_result, print_text, printable, wants_json
from ..exits import USAGE, Failure
from ..registry import RecipeError, suggest
from .app import MANAGE, command
from .options import Family, Json, Overrides

PACKAGES = ("torch", "accelerate", "safetensors", "numpy", "pillow", "omegaconf", "typer", "rich", "ftfy", "regex")
EXTRAS = ("pyarrow", "tensorboard", "wandb")


@command(MANAGE, "dalle recipes", "dalle recipes systems", "dalle recipes --json | jq -r .recipe")
def recipes(
    family: Annotated[str | None, typer.Argument(help="Only this family: dvae, clip, prior, decoder, ...")] = None,
    as_json: Json = False,
) -> None:
    """List the recipes, and which systems can generate images now."""
    from .. import recipe

    if family is not None and family not in recipe.FAMILIES:
        raise RecipeError(f"no family '{family}'{suggest(family, recipe.FAMILIES)}")
    rows = [_row(one, name) for one in ([family] if family else recipe.FAMILIES) for name in recipe.names(one)]
    if wants_json(as_json):
        for row in rows:
            print_result(row, (), as_json)
    elif rows:
        print_text(
            "\n".join(align([(row["recipe"], _status(row), printable(row["summary"])) for row in rows], cut=True))
        )
    if not rows:
        log(f"there are no recipes of {family} yet" if family else "no recipes found")


def _row(family: str, name: str) -> dict[str, Any]:
    """Return what `dalle recipes` says of a recipe; `missing` lists the checkpoints that a system lacks."""
    from .. import recipe
    from ..files import find_checkpoint

    path = recipe.find(name, family)
    missing = None
    if family == "systems":
        node = recipe.load(name, family, complete=False)
        missing = list(dict.fromkeys(source for _, source in recipe.sources(node) if not find_checkpoint(source)))
    return {
        "recipe": f"{family}/{name}", "command": f"dalle {recipe.FAMILIES[family]} --recipe {name}",
        "summary": recipe.headline(path), "path": str(path), "ready": None if missing is None else not missing,
        "missing": missing,
    }  # fmt: skip


def _status(row: dict[str, Any]) -> str:
    return {None: "", True: "ready", False: "not trained"}[row["ready"]]


@command(
    MANAGE,
    "dalle show clip/vit-b32 optim.lr=1e-4",
    "dalle show clip/tiny --explain",
    "dalle show starter/clip",
    "dalle show dvae/openai > recipes/dvae/mine.yaml",
)
def show(
    name: Annotated[str, typer.Argument(help="A recipe (clip/vit-b32, a file), or a checkpoint (file, run, starter).")],
    overrides: Overrides = None,
    family: Family = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Explain every key: its type, default and meaning.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of YAML.")] = False,
) -> None:
    """Print a recipe with everything that it inherits, or the recipe of a checkpoint."""
    from .. import recipe

    found = _recipe_of(name, overrides or [], family)
    if not explain:
        print_text(json.dumps(found) if as_json else recipe.to_yaml(found).rstrip("\n"))
        return
    from .explain import explain as rows_of
    from .explain import lines

    for row in rows_of(found):
        print_text(json.dumps(row, default=str) if as_json else "\n".join(map(printable, lines(row))))


def _recipe_of(name: str, overrides: list[str], family: str | None) -> dict[str, Any]:
    """Return a recipe by its name, or the one in a checkpoint. Raises RecipeError, Failure."""
    from .. import recipe

    if located := recipe.locate(name, family):
        found = recipe.load(located[1], located[0], overrides, accepts, log, complete=False)
        if overrides:
            _check(found, located[0])
        return found
    from .. import checkpoint

    try:
        path = checkpoint.resolve(name)
    except checkpoint.CheckpointError:
        known = suggest(name, recipe.all_names())
        raise RecipeError(f"no recipe and no checkpoint '{name}'{known}") from None
    if overrides:
        raise Failure(f"{path} is a checkpoint, whose recipe cannot be changed: remove {overrides[0]}", USAGE)
    return checkpoint.metadata(path)["recipe"]


def accepts(path: str, name: str) -> set[str] | None:
    """Call `checkpoint.accepts`, imported only when an override changes the type of a part."""
    from .. import checkpoint

    return checkpoint.accepted_arguments(path, name)


def _check(recipe: dict, family: str) -> None:
    """Check a recipe as far as it is filled in: paths may be open. Raises RecipeError."""
    from .. import checkpoint
    from ..data import loader
    from ..systems.loading import resolve_recipe
    from ..training import options

    if family == "systems":
        resolve_recipe(recipe)
    elif family != "tokenizer":
        checkpoint.check(recipe)
        options.options(recipe)
    if (recipe.get("data") or {"path": None}).get("path", "") is not None:
        loader.check(recipe["data"])


@command(MANAGE, "dalle env", "dalle env --json > env.json")
def env(as_json: Json = False) -> None:
    """Print versions, devices and capabilities of this machine, for bug reports."""
    facts = _environment()
    shown = {**facts, "devices": "; ".join(facts["devices"])}
    shown |= {"variables": " ".join(f"{key}={value}" for key, value in facts["variables"].items()) or "none set"}
    absent = {"emoji_font": "none: use data.objects=shapes, or install fonts-noto-color-emoji", "cuda": "none"}
    texts = [(key, absent.get(key, "not installed") if value is None else str(value)) for key, value in shown.items()]
    print_result(facts, align(texts), as_json)


def _environment() -> dict[str, Any]:
    """Return what is to be known of a machine; null for what is not installed."""
    import platform

    import torch

    from .. import __version__, distributed
    from ..hardware.capabilities import has_fast_bf16

    return {
        "dalle": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: _installed(package) for package in (*PACKAGES, *EXTRAS)},
        "cuda": torch.version.cuda,
        "devices": _devices(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
        "bf16_fast": has_fast_bf16(),
        "emoji_font": _emoji_font(),
        "variables": {key: os.environ[key] for key in sorted(os.environ) if key.startswith("DALLE_")},
    }


def _installed(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _emoji_font() -> str | None:
    from ..data.scenes.objects import MissingFont, font

    try:
        return str(font().path)
    except MissingFont:
        return None


def _devices() -> list[str]:
    import torch

    cuda = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    devices = [f"cuda:{index} {one.name}, {one.total_memory / 2**30:.0f} GiB" for index, one in enumerate(cuda)]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, f"cpu {torch.backends.cpu.get_cpu_capability()}"]
