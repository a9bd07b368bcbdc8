"""Commands that show what there is: recipes, show, env."""

import os
from typing import Annotated, Any

import typer

from ..console import align, log, print_result, print_text, printable, wants_json
from ..exits import USAGE, Failure
from ..registry import RecipeError, suggest
from .app import MANAGE, command
from .lookup import accepts, known_recipes, locate
from .options import Family, Json, Overrides

PACKAGES = ("torch", "accelerate", "safetensors", "numpy", "pillow", "omegaconf", "typer", "rich", "ftfy", "regex")
EXTRAS = ("pyarrow", "tensorboard", "wandb")


@command(MANAGE, "dalle recipes", "dalle recipes clip", "dalle recipes --json | jq -r .recipe")
def recipes(
    family: Annotated[str | None, typer.Argument(help="Only these: tokenizer, dvae, clip, prior, ...")] = None,
    as_json: Json = False,
) -> None:
    """List the recipes: what can be trained and drawn with."""
    from .. import recipe

    if family is not None and family not in recipe.FAMILIES:
        raise RecipeError(f"no family '{family}'{suggest(family, recipe.FAMILIES)}")
    rows = []
    for one in [family] if family else recipe.FAMILIES:
        for name in recipe.names(one):
            path = recipe.find(name, one)
            rows.append(
                {
                    "recipe": f"{one}/{name}",
                    "command": f"dalle {recipe.FAMILIES[one]} --recipe {name}",
                    "summary": recipe.headline(path),
                    "path": str(path),
                }
            )
    if wants_json(as_json):
        for row in rows:
            print_result(row, (), as_json)
    elif rows:
        print_text("\n".join(align([(row["recipe"], printable(row["summary"])) for row in rows], cut=True)))
    if not rows:
        log(f"there are no recipes of {family} yet" if family else "no recipes found")


@command(
    MANAGE,
    "dalle show clip/vit-b32 optim.lr=1e-4",
    "dalle show starter/clip",
    "dalle show dvae/openai > recipes/dvae/mine.yaml",
)
def show(
    name: Annotated[str, typer.Argument(help="A recipe (clip/vit-b32, a file), or a checkpoint (file, run, starter).")],
    overrides: Overrides = None,
    family: Family = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of YAML.")] = False,
) -> None:
    """Print a recipe with all that it inherits, or the one that a checkpoint carries."""
    import json

    from .. import recipe

    place = locate(name, family)
    if place:
        of, own = place
        found = recipe.load(own, of, overrides or [], accepts, log, complete=False)
        if overrides:
            _check(found, of)
    else:
        from .. import checkpoint

        try:
            path = checkpoint.resolve(name)
        except checkpoint.CheckpointError:
            raise RecipeError(f"no recipe and no checkpoint '{name}'{suggest(name, known_recipes())}") from None
        if overrides:
            raise Failure(f"{path} is a checkpoint: its recipe is what it is; leave out {overrides[0]}", USAGE)
        found = checkpoint.metadata(path)["recipe"]
    print_text(json.dumps(found) if as_json else recipe.to_yaml(found).rstrip("\n"))


def _check(found: dict, family: str) -> None:
    """What a recipe says, as far as it says it: it may leave paths open. Raises RecipeError."""
    from .. import checkpoint
    from ..data import loader
    from ..generate.sample import prepare
    from ..training import options

    if family == "systems":
        prepare(found, {})
    elif family != "tokenizer":
        checkpoint.check(found)
        options.options(found)
    if (found.get("data") or {"path": None}).get("path", "") is not None:
        loader.check(found["data"])


@command(MANAGE)
def env(as_json: Json = False) -> None:
    """Print versions, devices and what this machine is good at; for reports of problems."""
    import platform
    from importlib import metadata

    import torch

    from .. import __version__, distributed
    from ..data.scenes.glyphs import MissingFont, font
    from ..hardware.capabilities import fast_bf16

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    try:
        emoji = str(font().path)
    except MissingFont:
        emoji = None
    found: dict[str, Any] = {
        "dalle": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: version(package) for package in (*PACKAGES, *EXTRAS)},
        "cuda": torch.version.cuda,
        "devices": _devices(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
        "bf16_fast": fast_bf16(),
        "emoji_font": emoji,
        "variables": {key: os.environ[key] for key in sorted(os.environ) if key.startswith("DALLE_")},
    }
    shown = {**found, "devices": "; ".join(found["devices"])}
    shown |= {"variables": " ".join(f"{key}={value}" for key, value in found["variables"].items()) or "none set"}
    absent = {"emoji_font": "none: data.glyphs=shapes, or install fonts-noto-color-emoji", "cuda": "none"}
    texts = [(key, absent.get(key, "not installed") if value is None else str(value)) for key, value in shown.items()]
    print_result(found, align(texts), as_json)


def _devices() -> list[str]:
    import torch

    cuda = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    devices = [f"cuda:{number} {one.name}, {one.total_memory / 2**30:.0f} GiB" for number, one in enumerate(cuda)]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, f"cpu {torch.backends.cpu.get_cpu_capability()}"]
