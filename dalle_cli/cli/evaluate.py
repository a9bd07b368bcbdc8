"""`dalle evaluate NAME` and `dalle probe NAME`: the protocols of `dalle_cli.evaluate` as commands.

A command's options are the parameters of its protocol's function, a parameter that is a dataclass standing for its
fields. A parameter whose name is that of an option of options.py is that option. A protocol is imported when its
command runs or shows its help.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .. import console
from . import options
from .app import JUDGE, HelpGroup, app, command
from .data import section

Data = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH] [KEY=VALUE]...",
        help="A folder, tar shards or a table; data.* keys as in a recipe. Default: unseen built-in scenes.",
    ),
]
SHARED = {"data": Data, "as_json": options.Json}  # the others by name: `batch_size` is options.BatchSize
SUPPLIED = ("progress", "results")  # parameters of protocols that are no options


class Commands(Mapping[str, Any]):
    """The commands of a folder of protocols by name; one that is looked up is imported."""

    def __init__(self, folder: str):
        from ..evaluate import protocol

        self.folder = folder
        self.names = {name.replace("_", "-"): name for name in protocol.names(folder)}

    def __getitem__(self, name: str) -> Any:
        return _command(self.folder, self.names[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def summaries(self) -> dict[str, Any]:
        """Return commands that have a name and a help line only, without an import."""
        from ..evaluate import protocol

        return {word: TyperCommand(word, help=protocol.summary(self.folder, name)) for word, name in self.names.items()}


class ProtocolGroup(HelpGroup):
    """The commands of a folder of protocols."""

    folder = ""

    def __init__(self, **attributes: Any):
        super().__init__(**attributes)
        self.commands: Any = Commands(self.folder)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        commands, self.commands = self.commands, self.commands.summaries()
        super().format_help(ctx, formatter)
        self.commands = commands


class EvaluateGroup(ProtocolGroup):
    folder = "protocols"


class ProbeGroup(ProtocolGroup):
    folder = "probes"


for name, group, summary in (
    ("evaluate", EvaluateGroup, "Measure models and systems: a figure that anyone can reproduce."),
    ("probe", ProbeGroup, "Look into CLIP embeddings, and compare unCLIP with GLIDE."),
):
    app.add_typer(typer.Typer(cls=group, help=summary), name=name, rich_help_panel=JUDGE)


def _command(folder: str, name: str) -> Any:
    """Return the command of a protocol."""
    from ..evaluate import protocol

    single, word = typer.Typer(add_completion=False), name.replace("_", "-")
    function, examples, columns = (
        protocol.load(folder, name),
        protocol.constant(folder, name, "EXAMPLES"),
        protocol.constant(folder, name, "COLUMNS"),
    )
    title = f"{'probe' if folder == 'probes' else 'evaluate'} {word}"
    parameters = _parameters(function)

    def run(**values: Any) -> None:
        raise typer.Exit(_run(function, title, columns, values))

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__doc__ = protocol.summary(folder, name)
    command(None, *examples, name=word, to=single)(run)
    return typer.main.get_command(single)


def _bundles(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the parameters of a protocol that are dataclasses of options."""
    hints = typing.get_type_hints(function)
    return {name: kind for name, kind in hints.items() if name != "return" and dataclasses.is_dataclass(kind)}


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a protocol's command."""
    hints = typing.get_type_hints(function, include_extras=True)
    declared, bundles = inspect.signature(function).parameters, _bundles(function)
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in declared.items():
        if name in bundles:
            parameters |= _fields(bundles[name], parameter.default)
        elif name not in SUPPLIED:
            parameters[name] = _parameter(name, hints[name], parameter.default)
    results = typing.get_args(hints["return"]) or (hints["return"],)
    extra: dict[str, Any] = {"sheet": None, "overwrite": False} if any(one.sheet for one in results[:1]) else {}
    extra |= {"as_json": False} | ({"quiet": False} if "progress" in declared else {})
    for name, default in extra.items():
        parameters.setdefault(name, _parameter(name, Any, default))
    return sorted(parameters.values(), key=lambda one: one.default is not inspect.Parameter.empty)


def _run(function: Callable[..., Any], title: str, columns: tuple[str, ...], values: dict[str, Any]) -> int:
    """Call a protocol with the values of its command's options, print its result, and return the exit code."""
    from ..generate.outputs import Results
    from ..generate.sheets import check_sheet

    if sheet := values.get("sheet"):
        check_sheet(sheet, values.get("overwrite") or values.get("skip_existing") or False)
    arguments = {name: value for name, value in values.items() if name in inspect.signature(function).parameters}
    if arguments.get("data") is not None:
        arguments["data"] = section(arguments["data"])
    for name, bundle in _bundles(function).items():
        arguments[name] = bundle(**{field: values[field] for field in _names(bundle) if field in values})
    progress = console.StageProgress(values.get("quiet", False))
    supplied = {"progress": progress, "results": Results(values["as_json"], columns) if columns else None}
    arguments |= {name: supplied[name] for name in SUPPLIED if name in inspect.signature(function).parameters}
    try:
        result = function(**arguments)
    finally:
        progress.close()
    if result is None:  # a dry run
        return 0
    _print(result, title, values["as_json"])
    if sheet:
        result.save_sheet(sheet)
    return result.exit_code


def _print(result: Any, title: str, as_json: bool) -> None:
    if console.wants_json(as_json):
        for line in result.to_json():
            console.print_result(({"title": title} if result.titled else {}) | line, [], True)
    elif table := result.table():
        console.print_text("\n".join(table))


def _names(bundle: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(bundle)]


def _fields(bundle: Any, default: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a dataclass's fields that are shared options; defaults are those of `default`."""
    values = bundle() if default is inspect.Parameter.empty else default
    names = [name for name in _names(bundle) if _shared(name)]
    return {name: _parameter(name, Any, getattr(values, name)) for name in names}


def _shared(name: str) -> Any:
    return SHARED.get(name) or getattr(options, "".join(part.capitalize() for part in name.split("_")), None)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """Return the command's parameter for a protocol's parameter."""
    from ..evaluate.protocol import Option

    option = next((one for one in getattr(annotation, "__metadata__", ()) if isinstance(one, Option)), None)
    if option:
        annotation = _annotated(name, typing.get_args(annotation)[0], option, default)
    elif (annotation := _shared(name)) is None:
        raise TypeError(f"parameter '{name}' is no shared option: annotate it with Annotated[..., Option(...)]")
    default = list(default) if isinstance(default, tuple) else default  # as the parser of numbers returns them
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation, default=default)


def _annotated(name: str, kind: Any, option: Any, default: Any) -> Any:
    """Return the Typer annotation of a parameter with an Option."""
    metavar = option.metavar or ("X" if float in (kind, *typing.get_args(kind)) else None)
    metavar = metavar or ("N" if int in (kind, *typing.get_args(kind)) else None)
    details: dict[str, Any] = {"help": option.help, "metavar": metavar, "rich_help_panel": option.panel}
    inner = [one for one in (kind, *typing.get_args(kind)) if typing.get_origin(one) in (list, Sequence)]
    (element,) = typing.get_args(inner[0]) if inner else (None,)
    if element in (int, float):
        kind = Any
        details |= {"parser": options.numbers(element, option.minimum or 0, option.maximum or 1e9)}
        details |= {"metavar": option.metavar or "N,N,..."}
        details |= {"show_default": ",".join(f"{one:g}" for one in default)} if default else {}
    elif option.minimum is not None or option.maximum is not None:
        details |= {"min": option.minimum, "max": option.maximum}
    if option.positional:
        details["rich_help_panel"] = None
        return Annotated[kind, typer.Argument(**details)]
    return Annotated[kind, typer.Option(*option.flags, f"--{name.replace('_', '-')}", **details)]
