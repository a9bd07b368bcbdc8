"""Commands that show what there is: recipes, show, env."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import columns, lines_wanted, output, printable, report
from ..exits import USAGE, Failure
from ..registry import RecipeError, suggest
from .create import AsJson
from .main import app
from .train import Overrides

PACKAGES = ("torch", "accelerate", "safetensors", "numpy", "pillow", "omegaconf", "typer", "rich", "ftfy", "regex")
EXTRAS = ("pyarrow", "tensorboard", "wandb")

Family = Annotated[str | None, typer.Option(help="Of the recipe, where its name does not say: dvae, clip, prior, ...")]


@app.command(epilog="Examples: dalle recipes   |   dalle recipes clip   |   dalle recipes --json | jq -r .recipe")
def recipes(
    family: Annotated[str | None, typer.Argument(help="Only these: tokenizer, dvae, clip, prior, ...")] = None,
    as_json: AsJson = False,
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
    if lines_wanted(as_json):
        for row in rows:
            report(row, (), as_json)
    elif rows:
        output("\n".join(columns([(row["recipe"], printable(row["summary"])) for row in rows], cut=True)))
    if not rows:
        say(f"there are no recipes of {family} yet" if family else "no recipes found")


@app.command(
    epilog="Examples: dalle show clip/vit-b32 optim.lr=1e-4   |   dalle show starter/clip   |   "
    "dalle show dvae/openai > recipes/dvae/mine.yaml"
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
        found = recipe.load(own, of, overrides or [], accepts, say, complete=False)
        if overrides:
            _check(found, of)
    else:
        from .. import checkpoint

        try:
            path = checkpoint.resolve(name)
        except checkpoint.CheckpointError:
            known = [f"{one}/{each}" for one in recipe.FAMILIES for each in recipe.names(one)]
            raise RecipeError(f"no recipe and no checkpoint '{name}'{suggest(name, known)}") from None
        if overrides:
            raise Failure(f"{path} is a checkpoint: its recipe is what it is; leave out {overrides[0]}", USAGE)
        found = checkpoint.metadata(path)["recipe"]
    output(json.dumps(found) if as_json else recipe.to_yaml(found).rstrip("\n"))


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


@app.command()
def env(as_json: AsJson = False) -> None:
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
        "processes": distributed.count(),
        "bf16_fast": fast_bf16(),
        "emoji_font": emoji,
        "variables": {key: os.environ[key] for key in sorted(os.environ) if key.startswith("DALLE_")},
    }
    shown = {**found, "devices": "; ".join(found["devices"])}
    shown |= {"variables": " ".join(f"{key}={value}" for key, value in found["variables"].items()) or "none set"}
    absent = {"emoji_font": "none: data.glyphs=shapes, or install fonts-noto-color-emoji", "cuda": "none"}
    texts = [(key, absent.get(key, "not installed") if value is None else str(value)) for key, value in shown.items()]
    report(found, columns(texts), as_json)


def _devices() -> list[str]:
    import torch

    cuda = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    devices = [f"cuda:{number} {one.name}, {one.total_memory / 2**30:.0f} GiB" for number, one in enumerate(cuda)]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, f"cpu {torch.backends.cpu.get_cpu_capability()}"]


def locate(name: str, family: str | None = None) -> tuple[str, str] | None:
    """(family, name) of a recipe called `family/name`, by its file, or by a name that only one family has; else None.

    Raises RecipeError when the family is unknown or must be given.
    """
    from .. import recipe

    if family is not None:
        if family not in recipe.FAMILIES:
            raise RecipeError(f"--family: no family '{family}'{suggest(family, recipe.FAMILIES)}")
        return family, name.removeprefix(f"{family}/")
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if os.path.isfile(path) and path.resolve().parent.name not in recipe.FAMILIES:
            raise RecipeError(f"{name}: a recipe of which family? Add --family, one of {', '.join(recipe.FAMILIES)}")
        return path.resolve().parent.name, name
    head, _, tail = name.partition("/")
    if head in recipe.FAMILIES and tail:
        return head, tail
    homes = [one for one in recipe.FAMILIES if name in recipe.names(one)]
    if len(homes) > 1:
        raise RecipeError(f"several families have a recipe '{name}': say {' or '.join(f'{h}/{name}' for h in homes)}")
    return (homes[0], name) if homes else None


def accepts(path: str, name: str) -> set[str] | None:
    """As checkpoint.accepts, imported only when an override changes a part's type."""
    from .. import checkpoint

    return checkpoint.accepts(path, name)


def say(line: str) -> None:
    """Print what is no result."""
    print(printable(line), file=sys.stderr, flush=True)
