"""`dalle check`: check recipes, and report sizes, epochs and cost, without loading weights or training."""

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

OPEN = "???"  # a value that the user of a recipe has to give
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
    "dalle check --recipe mine.yaml --family dvae model.n_hid=64",
    "dalle check --recipe dalle1-12b --processes 64 --device-memory 80GiB",
)
def check(
    overrides: Overrides = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="A recipe (clip/vit-b32, a file). Default: all.")
    ] = None,
    family: Family = None,
    processes: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Estimate the cost of training on N GPUs.", rich_help_panel=HARDWARE),
    ] = None,
    device_memory: Annotated[
        int, typer.Option(parser=_bytes, metavar="SIZE", help="Memory of each GPU.", rich_help_panel=HARDWARE)
    ] = "80GiB",  # type: ignore[assignment]  (the parser's input)
    peak_tflops: Annotated[
        float,
        typer.Option(
            metavar="X", min=0.001, help="TFLOP/s of each GPU, in the precision used.", rich_help_panel=HARDWARE
        ),
    ] = 312.0,
    mfu: Annotated[
        float,
        typer.Option(
            metavar="X", min=0.001, max=1, help="Model FLOPs utilization, the fraction of the peak that is reached.",
            rich_help_panel=HARDWARE,
        ),
    ] = 0.4,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Check one recipe or all: keys, types, whether the parts fit each other, sizes, epochs and cost."""
    if recipe is None:
        if overrides or family or processes:
            raise Failure("overrides, --family and --processes need --recipe", USAGE)
        raise typer.Exit(_check_all(as_json))
    from .. import recipe as recipes

    located = recipes.locate(recipe, family)
    if located is None:
        raise RecipeError(f"no recipe '{recipe}'{suggest(recipe, recipes.all_names())}")
    hardware = None
    if processes:
        hardware = {"processes": processes, "memory": device_memory, "flops_per_s": peak_tflops * 1e12, "mfu": mfu}
    result = examine(*located, overrides or [], hardware)
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
        rows = [(result["recipe"], result.get("num_parameters", ""), _verdict(result)) for result in results]
        print_text("\n".join(printable(line) for line in align(rows, cut=True)))
    failed = sum("error" in result for result in results)
    log(f"{len(results)} recipes checked, {failed} failed")
    return PARTIAL if failed else DONE


def _verdict(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"FAILED: {result['error']}"
    return ", ".join(["ok", *(f"needs {need.partition(':')[0]}" for need in result["needs"])])


def examine(family: str, name: str, overrides: list[str], hardware: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the report of a recipe; `needs` lists what has to be given, or is not on this machine.

    hardware: arguments of `training.estimate.forecast`, for an estimate of the cost. Raises ValueError.
    """
    from .. import checkpoint
    from .. import recipe as recipes

    recipe = recipes.load(name, family, overrides, checkpoint.accepted_arguments, log, complete=False)
    title = name if name.endswith((".yaml", ".yml")) else f"{family}/{name}"
    needs = _open_values(recipe)
    data = recipe.get("data")
    if isinstance(data, dict) and data.get("path") in ("", None) and _takes_path(data.get("type")):
        needs.append("data.path")
        data["path"] = OPEN
    if family in ("systems", "tokenizer"):
        if hardware:
            raise Failure(f"{family}/{name} trains no network: remove --processes", USAGE)
        report = _system(recipe, needs) if family == "systems" else _tokenizer(recipe, needs)
    else:
        report = _training(recipe, needs, hardware)
    return {"recipe": title, **report, "needs": needs}


def _takes_path(data_type: Any) -> bool:
    from .. import checkpoint

    return "path" in (checkpoint.accepted_arguments("data", data_type) or ())


def _training(recipe: dict, needs: list[str], hardware: dict[str, Any] | None) -> dict[str, Any]:
    from ..training import estimate, options
    from ..training.compose_meta import compose_meta

    options.check(recipe)
    optim, train, _ = options.options(recipe)
    meta = compose_meta(recipe, needs)
    report = {**_sizes(meta), **_epochs(train, _epoch_samples(recipe["data"], needs))}
    if hardware and meta.task:
        report["estimate"] = estimate.forecast(meta.task, optim, train, int(recipe["data"]["size"]), **hardware)
        report["estimate"]["assumed"]["substitutes"] = meta.substitutes
    return report


def _sizes(meta: Any) -> dict[str, Any]:
    """Return the numbers of parameters: of the model, of its parts, of frozen models (None: not on this machine)."""
    parts: Counter[str] = Counter()
    for name, parameter in meta.model.named_parameters():
        parts[name.partition(".")[0]] += parameter.numel()
    frozen = {name: model and sum(p.numel() for p in model.parameters()) for name, model in meta.frozen.items()}
    return {"num_parameters": parts.total(), "parts": dict(parts.most_common()), "frozen": frozen}


def _epochs(train: Any, epoch_samples: int | None) -> dict[str, Any]:
    samples = train.steps * train.batch_size
    return {
        "batch_size": train.batch_size,
        "grad_accum_steps": train.grad_accum_steps,
        "steps": train.steps,
        "samples": samples,
        "epoch_samples": epoch_samples,
        "epochs": round(samples / epoch_samples, 3) if epoch_samples else None,
    }


def _epoch_samples(data: dict, needs: list[str]) -> int | None:
    """Return the training samples of an epoch; None if it cannot be known here. Raises DataError for unusable data."""
    from ..data import loader
    from ..data.scenes.objects import MissingFont

    if "data.path" in needs:
        return None
    try:
        samples = loader.build(data)
    except MissingFont as error:
        needs.append(f"data: {error}")
        return None
    for line in samples.problems:
        log(line)
    return samples.samples


def _tokenizer(recipe: dict, needs: list[str]) -> dict[str, Any]:
    from ..training import vocabulary

    learn, kind = vocabulary.check(recipe)
    epoch = _epoch_samples(recipe["data"], needs)
    return {"tokenizer": kind, "vocab_size": learn.vocab_size, "captions": learn.captions, "epoch_samples": epoch}


def _system(recipe: dict, needs: list[str]) -> dict[str, Any]:
    """Check the parts and sampling options of a system; return the sizes of its checkpoints."""
    from .. import checkpoint
    from ..recipe import section, sources
    from ..registry import bind
    from ..systems import systems

    parts = section(recipe, "parts")
    part, _ = systems.bind(recipe.get("system"), "system", ("device", *parts))
    bind(part.options_type, section(recipe, "sample"), "sample")  # type: ignore[attr-defined]
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
    """Return the keys of a recipe whose values its user has to give."""
    if isinstance(node, dict):
        return [key for name, value in node.items() for key in _open_values(value, f"{path}.{name}" if path else name)]
    return [path] if node == OPEN else []


def _lines(result: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the report of a recipe as rows of two cells."""
    rows: list[tuple[str, Any]] = []
    for key, value in result.items():
        if key == "estimate":
            rows += [(name, line) for name, line in _estimate_lines(value)]
        elif isinstance(value, dict):
            prefix = "  " if key == "parts" else f"{key}."
            rows += [(f"{prefix}{name}", "not found" if count is None else count) for name, count in value.items()]
        elif isinstance(value, list):
            rows += [(key, line) for line in value]
        else:
            rows.append((key, "unknown" if value is None else value))
    return rows


def _estimate_lines(estimate: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of an estimate, its assumptions first."""
    from ..hardware.memory_meter import describe_bytes

    assumed = estimate["assumed"]
    checkpointing = "on" if assumed["gradient_checkpointing"] else "off"
    yield (
        "hardware",
        (
            f"{assumed['processes']} GPUs of {assumed['device_memory'] / 2**30:.0f} GiB and "
            f"{assumed['flops_per_s'] / 1e12:g} TFLOP/s at {assumed['mfu']:.0%} MFU, {assumed['precision']}, "
            f"{assumed['micro_batch_size']} samples per GPU and pass, gradient checkpointing {checkpointing}"
        ),
    )
    for line in assumed["substitutes"]:
        yield "assumed", line
    forward, training = (count / 1e9 for count in estimate["flops"].values())
    yield "per sample", f"{forward:.4g} GFLOP forward, {training:.4g} GFLOP in training"
    sizes = (f"{size / 2**30:.2f} GiB {mode}" for mode, size in estimate["activations"].items())
    yield "activations", ", ".join(sizes)
    for name, title in (("ddp", "DDP"), ("fsdp", "FSDP")):
        if name in estimate:
            yield (
                f"memory, {title}",
                describe_bytes({key: size for key, size in estimate[name].items() if key != "fits"}),
            )
            verdict = "fits" if estimate[name]["fits"] else "does not fit"
            yield "", f"{verdict}; at most {estimate['max_batch_size'][name]:,} samples fit on a GPU"
    yield "speed", f"{estimate['samples_per_s']:,.1f} samples/s"
    yield "total", f"{estimate['total_flops']:.3g} FLOP, {estimate['days']:,.1f} days"
