"""The reference of commands, for generate.py: their options, the fields of their JSON lines, and the exit codes."""

import inspect
import json
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from dalle_cli import exits

DOCS = Path(__file__).parent
GROUPS = ("Train", "Create", "Judge", "Manage")
EXIT_CODES = (
    (exits.DONE, "done"),
    (exits.FAILED, "failure; one line on standard error says the cause and the remedy"),
    (exits.USAGE, "usage: an option or a recipe is wrong"),
    (exits.BAD_INPUT, "bad input: prompts, images, data or checkpoints"),
    (exits.PARTIAL, "some items failed; each is a result with `error`"),
    (exits.WOULD_OVERWRITE, "would overwrite files: pass `--skip-existing`, `--overwrite` or another `--out`"),
    (exits.STOPPED, "stopped early with the state saved (SIGTERM, SIGUSR1, `--max-time`): run the same command again"),
    (exits.INTERRUPTED, "Ctrl-C; a training run has saved its state"),
    (exits.CLOSED_PIPE, "the reader of standard output has closed it, as `head` does"),
)


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a Markdown table; cells are escaped."""
    head = list(head)
    lines = [head, ["---"] * len(head), *([_cell(one) for one in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|").strip()


def show_value(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, default=str)


def commands() -> dict[str, Any]:
    """Return all commands by their words, such as `evaluate dvae`, in the order of `dalle --help`."""
    import typer

    from dalle_cli.cli.main import load

    root: Any = typer.main.get_command(load())
    found: dict[str, Any] = {}
    for group in GROUPS:
        for name, command in root.commands.items():
            if command.rich_help_panel == group:
                inner = getattr(command, "commands", None)
                found |= {f"{name} {key}": one for key, one in inner.items()} if inner else {name: command}
    return found


def json_fields() -> dict[str, dict[str, str]]:
    """Return the fields of the JSON lines of each command: a `?` ends the names of those that are not in every line."""
    tables = yaml.safe_load((DOCS / "json_fields.yaml").read_text(encoding="utf-8"))
    shared = tables.pop("shared")
    merged = {}
    for name, fields in tables.items():
        own = {**shared.get(fields.pop("like", ""), {}), **fields}
        merged[name] = {}
        for key, text in own.items():
            if key.endswith("±"):
                merged[name] |= {key[:-1]: text, f"{key[:-1]}_interval": "its 95 % interval"}
            else:
                merged[name][key] = text
    return merged


def commands_page() -> str:
    """Return the reference of commands."""
    fields = json_fields()
    out = [
        "# Commands",
        "Every command, its options, the fields of its JSON lines, and the exit codes. On the command line, `--help` "
        "says the same:",
        "```sh\ndalle --help\ndalle sample --help\n```",
        "Results go to standard output: text on a terminal, one JSON object per line in a pipe or with `--json`. "
        "Progress and messages go to standard error. `dalle --debug COMMAND` shows the traceback of an error. "
        "This page is generated from the program.",
        "## Exit codes",
        table(("code", "meaning"), EXIT_CODES),
    ]
    group = None
    for name, command in commands().items():
        if (title := _group(name)) != group:
            group = title
            out.append(f"## {group}")
        out += _command(name, command, fields.get(name))
    return "\n\n".join(out) + "\n"


def _group(name: str) -> str:
    import typer

    from dalle_cli.cli.app import app

    root: Any = typer.main.get_command(app)
    return root.commands[name.split()[0]].rich_help_panel


def _command(name: str, command: Any, fields: dict[str, str] | None) -> Iterator[str]:
    summary, _, more = (command.help or "").strip().partition("\n\n")
    yield f"### dalle {name}"
    yield " ".join(summary.split())
    for paragraph in filter(None, more.split("\n\n")):
        yield " ".join(paragraph.split())
    if examples := re.findall(r"^\s*((?:dalle|torchrun) .*)$", command.epilog or "", re.M):
        yield "```sh\n" + "\n".join(examples) + "\n```"
    rows = [_parameter(one) for one in command.params if one.name != "help"]
    if rows:
        yield table(("argument or option", "value", "default", "meaning"), rows)
    if fields:
        yield f"Fields of the JSON lines of `dalle {name}`:"
        rows = ((f"`{key.rstrip('?')}`", f"{text} (not in every line)" if key.endswith("?") else text)
                for key, text in fields.items())  # fmt: skip
        yield table(("field", "meaning"), rows)


def _parameter(parameter: Any) -> tuple[str, str, str, str]:
    argument = parameter.param_type_name == "argument"
    names = f"`{_metavar(parameter)}`" if argument else ", ".join(f"`{one}`" for one in parameter.opts)
    flag = not argument and parameter.is_flag
    value = "" if flag or argument else f"`{_metavar(parameter).replace('|', ' or ')}`"
    default = parameter.default
    if callable(default) or default in (None, False, [], ()):
        default = "" if not isinstance(getattr(parameter, "show_default", None), str) else parameter.show_default
    text = " ".join((parameter.help or "").split())
    if match := re.search(r"\s*Default: (.+?)\.?$", text):
        default, text = match[1], text[: match.start()]
    if parameter.required:
        default = "required"
    if default not in ("", "required"):
        default = f"`{show_value(getattr(default, 'value', default))}`"
    return names, value, default, text


def _metavar(parameter: Any) -> str:
    if parameter.metavar:
        return parameter.metavar
    if parameter.param_type_name == "argument":
        return parameter.name.upper()
    name, low, high = _kind(parameter)
    if low is not None and high is not None:
        return f"{name} ({low:,} to {high:,})" if high < 1e7 else f"{name} ({low:,} or more)"
    return f"{name} ({low:,} or more)" if low is not None else name


def _kind(parameter: Any) -> tuple[str, float | None, float | None]:
    """Return how the help names the type of an option, and its bounds: in any version of typer."""
    if descriptor := getattr(parameter, "type_descriptor", None):  # typer that no longer uses click
        kind, low, high = descriptor.annotation, parameter.min, parameter.max
        if inspect.isclass(kind) and issubclass(kind, Enum):
            return "|".join(str(one.value) for one in kind), low, high
        return {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT"), low, high
    kind = parameter.type
    if choices := getattr(kind, "choices", None):
        return "|".join(str(getattr(one, "value", one)) for one in choices), None, None
    names = {"integer": "N", "integer range": "N", "float": "X", "float range": "X", "path": "PATH"}
    return names.get(kind.name, "TEXT"), getattr(kind, "min", None), getattr(kind, "max", None)
