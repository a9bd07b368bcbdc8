"""Write the generated pages: recipes.md, commands.md and the marked parts of other pages.

python docs/generate.py writes them; tests/test_docs_generated.py checks that the committed ones are up to date.
"""

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from dalle_cli import exits, recipe  # noqa: E402
from dalle_cli.registry import Registry, documented_keys  # noqa: E402

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


# ---- recipes.md ----------------------------------------------------------------------------------------------------


def recipes_page() -> str:
    """Return the reference of recipes: those that are included, and the keys of every part."""
    from dalle_cli import data, tasks, text
    from dalle_cli.cli.explain import COMMON
    from dalle_cli.data.section import SUPPLIED, Loading
    from dalle_cli.models import models
    from dalle_cli.systems import systems
    from dalle_cli.training import options, vocabulary

    common = documented_keys(Loading)
    reserved = {*SUPPLIED, *(key.name for key in common)}
    out = [
        "# Recipes",
        "A recipe says what is composed and how it is trained or sampled. `dalle recipes` lists them, and `dalle show` "
        "prints one with everything it inherits:",
        "```sh\ndalle show clip/tiny\ndalle show clip/tiny --explain\n```",
        "Training recipes have the sections `model`, `task`, `frozen`, `data`, `optim`, `train`, `tracker` and "
        "`tokenizer`; system recipes have `system`, `parts` and `sample`. `extends: FILE` names a parent. Any key can "
        "be changed on the command line: `dalle train-clip --recipe tiny optim.lr=3e-4 model.image.depth=4`. A recipe "
        "is looked up as a path, then under `./recipes/FAMILY/`, then among those of the package.",
        "This page is generated from the code.",
        "## Included recipes",
        *_included(),
        "## Keys of the training loop",
        "### `train`",
        _keys(options.Train),
        "### `optim`",
        _keys(options.Optim),
        "### `tracker`",
        _keys(options.Tracker),
        "### `learn`",
        "Of `dalle train-tokenizer`.",
        _keys(vocabulary.Learn),
        "## Models",
        *_parts(models, COMMON),
        "## Tasks",
        "Networks and tokenizers are supplied by the other sections; frozen models by `frozen.NAME=CHECKPOINT`.",
        *_parts(tasks.tasks, COMMON),
        "## Data",
        "Keys that every source takes:",
        _table(common, COMMON),
        *_parts(data.sources, COMMON, reserved),
        "## Tokenizers",
        *_parts(text.tokenizers, COMMON),
        "## Systems",
        "Parts are checkpoints; the keys of `sample` are the defaults of the options of `dalle sample`.",
        *_systems(systems),
    ]
    return "\n\n".join(out) + "\n"


def _included() -> Iterator[str]:
    root = DOCS.parent / "recipes"
    for family, command in recipe.FAMILIES.items():
        paths = [path for path in sorted((root / family).glob("*.yaml")) if not path.name.startswith("_")]
        yield f"### {family}"
        yield f"`dalle {command} --recipe NAME`"
        yield table(("recipe", "what it is"), ((f"`{path.stem}`", recipe.headline(path)) for path in paths))


def _parts(registry: Registry, common: dict[str, str], reserved: Iterable[str] = ()) -> Iterator[str]:
    for name in registry.names():
        part = registry.get(name)
        yield f"### `type: {name}`"
        yield _summary(part)
        keys = [key for key in documented_keys(part, reserved) if not _module(key.type)]
        yield _table(keys, common) if keys else "It takes no keys."


def _systems(registry: Registry) -> Iterator[str]:
    for name in registry.names():
        part: Any = registry.get(name)
        parts = [f"`{key}`" for key in inspect.signature(part).parameters if key != "device"] + ["`reranker`"]
        yield f"### `type: {name}`"
        yield _summary(part)
        yield f"Parts: {', '.join(parts)}."
        yield _keys(part.options_type)


def _keys(part: Any) -> str:
    from dalle_cli.cli.explain import COMMON

    return _table(documented_keys(part), COMMON)


def _table(keys: Iterable[Any], common: dict[str, str]) -> str:
    rows = (
        (
            f"`{key.name}`",
            key.type,
            "required" if key.required else f"`{_value(key.default)}`",
            key.text or common.get(key.name, ""),
        )
        for key in keys
    )
    return table(("key", "type", "default", "meaning"), rows)


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, default=str)


def _module(type_name: str) -> bool:
    """Return whether a key is a built network or tokenizer, which a recipe cannot write."""
    return "part" in type_name.split()


def _summary(part: Callable) -> str:
    return " ".join((inspect.getdoc(part) or "").partition("\n\n")[0].split()).replace("<", "\\<")


# ---- commands.md ---------------------------------------------------------------------------------------------------


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
        default = f"`{_value(getattr(default, 'value', default))}`"
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


# ---- marked parts of other pages -----------------------------------------------------------------------------------


def objects() -> str:
    """Return the names of the everyday objects as one paragraph."""
    from dalle_cli.data.scenes import objects

    names = objects.EVERYDAY
    return (names if isinstance(names, str) else ", ".join(names)) + "."


def renamed_keys() -> str:
    """Return the recipe keys of version 1 of checkpoints with those of version 2."""
    from dalle_cli import migrations

    parts = {
        "model": migrations.MODEL_KEYS,
        "task": migrations.TASK_KEYS,
        "data": migrations.DATA_KEYS,
        "tokenizer": migrations.TOKENIZER_KEYS,
    }
    plain = {
        "optim": migrations.OPTIM_KEYS,
        "train": migrations.TRAIN_KEYS,
        "tracker": migrations.TRACKER_KEYS,
        "sample": migrations.SAMPLE_KEYS,
        "parts": migrations.PARTS_KEYS,
    }
    tables = [(section, kind, keys) for section, types in parts.items() for kind, keys in types.items()]
    tables += [(section, "*", keys) for section, keys in plain.items()]
    rows = (
        (f"`{section}`" + ("" if kind == "*" else f" of type `{kind}`"), f"`{old}`", f"`{new}`")
        for section, kind, keys in tables
        for old, new in keys.items()
    )
    return table(("section", "0.1", "0.2"), rows)


def extension(name: str) -> str:
    """Return an example of tests/fixtures/extensions as a block; the only file in a folder, where `name` is one."""
    folder = DOCS.parent / "tests/fixtures/extensions"
    shown = {"condition": "dalle_cli/models/conditions/*.py", "system": "dalle_cli/systems/*.py"}.get(name, name)
    paths = sorted(path for path in folder.glob(shown) if path.name != "__init__.py")
    blocks = []
    for path in paths:
        language = {".yaml": "yaml", ".py": "python"}[path.suffix]
        code = path.read_text(encoding="utf-8").rstrip()
        blocks.append(f"`{path.relative_to(folder)}`:\n\n```{language}\n{code}\n```")
    return "\n\n".join(blocks)


def fill(path: Path, parts: dict[str, str]) -> str:
    """Return the text of a page with its marked parts replaced."""
    text = path.read_text(encoding="utf-8")
    for name, content in parts.items():
        start, end = f"<!-- generated: {name} -->\n", "<!-- end -->"
        head, found, rest = text.partition(start)
        assert found, f"{path}: no part {name}"
        text = f"{head}{start}\n{content}\n\n{end}{rest.partition(end)[2]}"
    return text


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 120, break_on_hyphens=False))


def pages() -> dict[str, str]:
    """Return the generated pages by file name."""
    contributing = DOCS.parent / "CONTRIBUTING.md"
    extensions = re.findall(r"<!-- generated: (.*) -->", contributing.read_text(encoding="utf-8"))
    return {
        "recipes.md": recipes_page(),
        "commands.md": commands_page(),
        "data.md": fill(DOCS / "data.md", {"objects": _wrapped(objects())}),
        "../CHANGELOG.md": fill(DOCS.parent / "CHANGELOG.md", {"keys": renamed_keys()}),
        "../CONTRIBUTING.md": fill(contributing, {name: extension(name) for name in extensions}),
    }


if __name__ == "__main__":
    for file, content in pages().items():
        (DOCS / file).write_text(content, encoding="utf-8")
        print((DOCS / file).resolve().relative_to(DOCS.parent))
