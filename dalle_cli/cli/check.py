"""`dalle check`: whether recipes are right and what they amount to, found out without training or loading anything."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ..console import align, log, print_result, print_text, printable, wants_json
from ..exits import DONE, PARTIAL, USAGE, Failure
from ..registry import RecipeError, suggest
from .app import MANAGE, command
from .options import HARDWARE, Family, Json, Overrides

OPEN = "???"  # what a recipe leaves to its user
UNITS = {"GIB": 2**30, "GB": 10**9, "MIB": 2**20, "MB": 10**6, "TIB": 2**40, "TB": 10**12}


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9.]+) ?([KMGT]i?B)", text.strip(), re.I)
    try:
        return int(float(match[1]) * UNITS[match[2].upper()]) if match else int(text)
    except (ValueError, KeyError):
        raise typer.BadParameter(f"'{text}' is not a size such as 80GiB") from None


@command(
    MANAGE,
    "dalle check",
    "dalle check --recipe clip/vit-b32 data.path=/data/pairs",
    "dalle check --recipe mine.yaml --family dvae model.hidden=64",
    "dalle check --recipe dalle1-12b --processes 64 --device-memory 80GiB",
)
def check(
    overrides: Overrides = None,
    recipe: Annotated[str | None, typer.Option(help="Name (clip/vit-b32) or file of a recipe. Default: all.")] = None,
    family: Family = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Estimate what training on so many GPUs takes.", rich_help_panel=HARDWARE),
    ] = None,
    device_memory: Annotated[
        int, typer.Option(parser=_bytes, metavar="SIZE", help="Of each GPU.", rich_help_panel=HARDWARE)
    ] = "80GiB",  # type: ignore[assignment]  (the parser's input)
    peak: Annotated[
        float, typer.Option(min=0.001, help="TFLOP/s of each GPU in the precision used.", rich_help_panel=HARDWARE)
    ] = 312.0,
    utilisation: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of the peak that is reached.", rich_help_panel=HARDWARE)
    ] = 0.4,
    as_json: Json = False,
) -> None:
    """Check a recipe, or all: names, types, whether the parts fit, sizes and epochs. Nothing is loaded."""
    if recipe is None:
        if overrides or family or processes:
            raise Failure("overrides, --family and --processes need a --recipe to apply to", USAGE)
        raise typer.Exit(_check_all(as_json))
    from .. import recipe as recipes

    place = recipes.locate(recipe, family)
    if place is None:
        raise RecipeError(f"no recipe '{recipe}'{suggest(recipe, recipes.all_names())}")
    hardware = None
    if processes:
        hardware = {"processes": processes, "room": device_memory, "rate": peak * 1e12, "utilisation": utilisation}
    result = examine(*place, overrides or [], hardware)
    print_result(result, align(_lines(result)), as_json)


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
            if wants_json(as_json):
                print_result(result, (), as_json)
    if not wants_json(as_json):
        rows = [(result["recipe"], result.get("parameters", ""), _verdict(result)) for result in results]
        print_text("\n".join(printable(line) for line in align(rows, cut=True)))
    failed = sum("error" in result for result in results)
    log(f"{len(results)} recipes checked, {failed} failed")
    return PARTIAL if failed else DONE


def _verdict(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"FAILED: {result['error']}"
    return ", ".join(["ok", *(f"needs {need.partition(':')[0]}" for need in result["needs"])])


def examine(family: str, name: str, overrides: list[str], hardware: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a recipe amounts to; `needs` names what is to be given, or is not on this machine. Raises ValueError.

    hardware: of training/estimate.py's `forecast`, for an estimate of what training takes.
    """
    from .. import checkpoint
    from .. import recipe as recipes

    found = recipes.load(name, family, overrides, checkpoint.accepts, log, complete=False)
    about = {"recipe": name if name.endswith((".yaml", ".yml")) else f"{family}/{name}"}
    needs = _open_values(found)
    data = found.get("data")
    if isinstance(data, dict) and data.get("path") in ("", None) and _takes_path(data.get("type")):
        needs.append("data.path")
        data["path"] = OPEN
    if family in ("systems", "tokenizer"):
        if hardware:
            raise Failure(f"{family}/{name} trains no network: leave out --processes and what belongs to it", USAGE)
        special = _system(found, needs) if family == "systems" else _tokenizer(found, needs)
    else:
        special = _training(found, needs, hardware)
    return {**about, **special, "needs": needs}


def _takes_path(data_type: Any) -> bool:
    from .. import checkpoint

    return "path" in (checkpoint.accepts("data", data_type) or ())


def _training(recipe: dict, needs: list[str], hardware: dict[str, Any] | None) -> dict[str, Any]:
    from ..training import estimate, options
    from ..training.compose_meta import sketch

    options.check(recipe)
    optim, train, _ = options.options(recipe)
    shapes = sketch(recipe, needs)
    parts: Counter[str] = Counter()
    for name, parameter in shapes.model.named_parameters():
        parts[name.partition(".")[0]] += parameter.numel()
    epoch = _epoch_samples(recipe["data"], needs)
    samples = train.steps * train.batch_size
    found = {
        "parameters": parts.total(),
        "parts": dict(parts.most_common()),
        "frozen": {
            name: one and sum(parameter.numel() for parameter in one.parameters())
            for name, one in shapes.frozen.items()
        },
        "batch_size": train.batch_size,
        "accumulate": train.accumulate,
        "steps": train.steps,
        "samples": samples,
        "epoch_samples": epoch,
        "epochs": round(samples / epoch, 3) if epoch else None,
    }
    if hardware and shapes.task:
        found["estimate"] = estimate.forecast(shapes.task, optim, train, int(recipe["data"]["size"]), **hardware)
        found["estimate"]["assumed"]["stand_ins"] = shapes.assumed
    return found


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
        log(line)
    return found.samples


def _tokenizer(recipe: dict, needs: list[str]) -> dict[str, Any]:
    from ..training import vocabulary

    learn, kind = vocabulary.check(recipe)
    epoch = _epoch_samples(recipe["data"], needs)
    return {"tokenizer": kind, "entries": learn.size, "captions": learn.captions, "epoch_samples": epoch}


def _system(recipe: dict, needs: list[str]) -> dict[str, Any]:
    """As generate/sample.py reads it: the parts are checkpoints, the options are of the system's own kind."""
    from .. import checkpoint
    from ..recipe import section, sources
    from ..registry import bind
    from ..systems import systems

    parts = section(recipe, "parts")
    part, _ = systems.bind(recipe.get("system"), "system", ("device", *parts))
    bind(part.sampling, section(recipe, "sample"), "sample")  # type: ignore[attr-defined]
    sizes: dict[str, int | None] = {}
    for name, source in sources(recipe):
        sizes.setdefault(name, None)
        try:
            if source != OPEN:
                path = checkpoint.resolve(source)
                checkpoint.metadata(path)
                sizes[name] = (sizes[name] or 0) + path.stat().st_size
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
        if key == "estimate":
            rows += [(name, line) for name, line in _estimate(value)]
        elif isinstance(value, dict):
            prefix = "  " if key == "parts" else f"{key}."
            rows += [(f"{prefix}{name}", "not here" if count is None else count) for name, count in value.items()]
        elif isinstance(value, list):
            rows += [(key, line) for line in value]
        else:
            rows.append((key, "not known" if value is None else value))
    return rows


def _estimate(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of an estimate, what it assumes first."""
    from ..hardware.memory_meter import readable

    given = found["assumed"]
    hardware = (
        f"{given['processes']} GPUs of {given['device_memory'] / 2**30:.0f} GiB and {given['flops_per_s'] / 1e12:g} "
        f"TFLOP/s, {given['utilisation']:.0%} of it used, in {given['precision']}, {given['samples_at_once']} samples "
        f"at once, activations {'recomputed' if given['recomputed'] else 'kept'}"
    )
    yield "on", hardware
    for line in given["stand_ins"]:
        yield "assumed", line
    yield "a sample", "{:.4g} GFLOP forward, {:.4g} in training".format(*(n / 1e9 for n in found["flops"].values()))
    yield "activations", ", ".join(f"{size / 2**30:.2f} GiB {way}" for way, size in found["activations"].items())
    for name, title in (("ddp", "DDP"), ("fsdp", "FSDP")):
        if name in found:
            parts = {key: size for key, size in found[name].items() if key != "fits"}
            yield f"memory, {title}", readable(parts)
            verdict = "fits" if found[name]["fits"] else "does not fit"
            yield "", f"{verdict}; a GPU could take {found['most'][name]:,} samples at once"
    yield "speed", f"{found['samples_per_s']:,.1f} samples/s"
    yield "in all", f"{found['flop']:.3g} FLOP, {found['days']:,.1f} days"
