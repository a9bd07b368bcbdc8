"""`dalle check`: whether recipes are right and what they amount to, found out without training or loading anything."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..exits import DONE, PARTIAL, USAGE, Failure
from ..registry import RecipeError, suggest
from .create import AsJson
from .main import app
from .manage import Family, locate, say
from .results import columns, lines_wanted, output, printable, report
from .train import Overrides

if TYPE_CHECKING:
    from torch import nn

OPEN = "???"  # what a recipe leaves to its user


@app.command(
    epilog="Examples: dalle check   |   dalle check --recipe clip/vit-b32 data.path=/data/pairs   |   "
    "dalle check --recipe mine.yaml --family dvae model.hidden=64"
)
def check(
    overrides: Overrides = None,
    recipe: Annotated[str | None, typer.Option(help="Name (clip/vit-b32) or file of a recipe. Default: all.")] = None,
    family: Family = None,
    as_json: AsJson = False,
) -> None:
    """Check a recipe, or all: names, types, whether the parts fit, sizes and epochs. Nothing is loaded."""
    if recipe is None:
        if overrides or family:
            raise Failure("overrides and --family need a --recipe to apply to", USAGE)
        raise typer.Exit(_check_all(as_json))
    place = locate(recipe, family)
    if place is None:
        from .. import recipe as recipes

        known = [f"{one}/{name}" for one in recipes.FAMILIES for name in recipes.names(one)]
        raise RecipeError(f"no recipe '{recipe}'{suggest(recipe, known)}")
    result = examine(*place, overrides or [])
    report(result, columns(_lines(result)), as_json)


def _check_all(as_json: bool) -> int:
    from .. import recipe as recipes

    results: list[dict[str, Any]] = []
    for family in recipes.FAMILIES:
        for name in recipes.names(family):
            try:
                result = examine(family, name, [])
            except (ValueError, RuntimeError) as error:
                result = {"recipe": f"{family}/{name}", "error": " ".join(str(error).split())}
            results.append(result)
            if lines_wanted(as_json):
                report(result, (), as_json)
    if not lines_wanted(as_json):
        rows = [(result["recipe"], result.get("parameters", ""), _verdict(result)) for result in results]
        output("\n".join(printable(line) for line in columns(rows, cut=True)))
    failed = sum("error" in result for result in results)
    say(f"{len(results)} recipes checked, {failed} failed")
    return PARTIAL if failed else DONE


def _verdict(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"FAILED: {result['error']}"
    return ", ".join(["ok", *(f"needs {need.partition(':')[0]}" for need in result["needs"])])


def examine(family: str, name: str, overrides: list[str]) -> dict[str, Any]:
    """What a recipe amounts to; `needs` names what is to be given, or is not on this machine. Raises ValueError."""
    from .. import checkpoint
    from .. import recipe as recipes

    found = recipes.load(name, family, overrides, checkpoint.accepts, say, complete=False)
    about = {"recipe": name if name.endswith((".yaml", ".yml")) else f"{family}/{name}"}
    needs = _open_values(found)
    data = found.get("data")
    if isinstance(data, dict) and data.get("path") in ("", None) and _takes_path(data.get("type")):
        needs.append("data.path")
        data["path"] = OPEN
    special = {"systems": _system, "tokenizer": _tokenizer}.get(family, _training)
    return {**about, **special(found, needs), "needs": needs}


def _takes_path(data_type: Any) -> bool:
    from .. import checkpoint

    return "path" in (checkpoint.accepts("data", data_type) or ())


def _training(recipe: dict, needs: list[str]) -> dict[str, Any]:
    from ..training import options

    options.check(recipe)
    _, train, _ = options.options(recipe)
    model, frozen = _sketch(recipe, needs)
    parts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        parts[name.partition(".")[0]] += parameter.numel()
    epoch = _epoch_samples(recipe["data"], needs)
    samples = train.steps * train.batch_size
    return {
        "parameters": parts.total(),
        "parts": dict(parts.most_common()),
        "frozen": {
            name: one and sum(parameter.numel() for parameter in one.parameters()) for name, one in frozen.items()
        },
        "batch_size": train.batch_size,
        "accumulate": train.accumulate,
        "steps": train.steps,
        "samples": samples,
        "epoch_samples": epoch,
        "epochs": round(samples / epoch, 3) if epoch else None,
    }


def _sketch(recipe: dict, needs: list[str]) -> "tuple[nn.Module, dict[str, nn.Module | None]]":
    """The model of a training recipe and its companions, shapes without weights; None for companions not here.

    Where nothing is missing the whole task is composed, which says whether its parts fit each other.
    """
    import torch

    from .. import checkpoint
    from .. import recipe as recipes
    from ..models import models
    from ..text import TextError, tokenizers

    tokenizer = None
    try:
        if recipe.get("tokenizer") and "tokenizer.path" not in needs:
            tokenizer = tokenizers.build(recipe["tokenizer"], "tokenizer")
    except TextError as error:
        needs.append(f"tokenizer: {error}")
    frozen: dict[str, nn.Module | None] = {}
    with torch.device("meta"):
        for name, source in recipes.section(recipe, "frozen").items():
            frozen[name] = None
            try:
                if source != OPEN:
                    path = checkpoint.resolve(str(source))
                    frozen[name] = models.build(checkpoint.metadata(path)["recipe"].get("model"), f"frozen.{name}")
            except checkpoint.CheckpointError as error:
                needs.append(f"frozen.{name}: {error}")
        companions = {name: model for name, model in frozen.items() if model is not None}
        if (recipe.get("tokenizer") and tokenizer is None) or len(companions) < len(frozen):
            return models.build(recipe["model"], "model"), frozen
        task: Any = checkpoint.compose(recipe, tokenizer, companions)
    return task.model, frozen


def _epoch_samples(data: dict, needs: list[str]) -> int | None:
    """Training samples in an epoch; None where that cannot be known here. Raises DataError for data that is no good."""
    from ..data import loader
    from ..data.scenes.glyphs import MissingFont

    if "data.path" in needs:
        return None
    try:
        found = loader.build(data)
    except MissingFont as error:
        needs.append(f"data: {error}")
        return None
    for line in found.problems:
        say(line)
    return found.samples


def _tokenizer(recipe: dict, needs: list[str]) -> dict[str, Any]:
    from ..training import vocabulary

    learn, kind = vocabulary.check(recipe)
    epoch = _epoch_samples(recipe["data"], needs)
    return {"tokenizer": kind, "entries": learn.size, "captions": learn.captions, "epoch_samples": epoch}


def _system(recipe: dict, needs: list[str]) -> dict[str, Any]:
    """As generate/sample.py reads it: the parts are checkpoints, the options are of the system's own kind."""
    from .. import checkpoint
    from ..generate import systems
    from ..recipe import section
    from ..registry import bind

    parts = section(recipe, "parts")
    part, _ = systems.bind(recipe.get("system"), "system", ("device", *parts))
    bind(part.sampling, section(recipe, "sample"), "sample")  # type: ignore[attr-defined]
    sizes: dict[str, int | None] = {}
    for name, source in parts.items():
        sizes[name] = None
        try:
            if source != OPEN:
                path = checkpoint.resolve(str(source))
                checkpoint.metadata(path)
                sizes[name] = path.stat().st_size
        except checkpoint.CheckpointError as error:
            needs.append(f"parts.{name}: {error}")
    return {"system": recipe["system"]["type"], "bytes": sizes}


def _open_values(node: Any, path: str = "") -> list[str]:
    """Places of a recipe that its user is to fill in."""
    if isinstance(node, dict):
        return [place for key, value in node.items() for place in _open_values(value, f"{path}.{key}" if path else key)]
    return [path] if node == OPEN else []


def _lines(result: dict[str, Any]) -> list[tuple[str, Any]]:
    """The report of one recipe, as rows of two cells."""
    rows: list[tuple[str, Any]] = []
    for key, value in result.items():
        if isinstance(value, dict):
            prefix = "  " if key == "parts" else f"{key}."
            rows += [(f"{prefix}{name}", "not here" if count is None else count) for name, count in value.items()]
        elif isinstance(value, list):
            rows += [(key, line) for line in value]
        else:
            rows.append((key, "not known" if value is None else value))
    return rows
