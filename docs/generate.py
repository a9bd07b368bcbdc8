"""Write the generated pages: recipes.md, commands.md and the marked parts of other pages.

python docs/generate.py writes them; tests/test_docs_generated.py checks that the committed ones are up to date.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

from command_reference import commands, commands_page, json_fields, show_value, table  # noqa: E402, F401

from dalle_cli import recipe  # noqa: E402
from dalle_cli.registry import Registry, documented_keys  # noqa: E402

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
            "required" if key.required else f"`{show_value(key.default)}`",
            key.text or common.get(key.name, ""),
        )
        for key in keys
    )
    return table(("key", "type", "default", "meaning"), rows)


def _module(type_name: str) -> bool:
    """Return whether a key is a built network or tokenizer, which a recipe cannot write."""
    return "part" in type_name.split()


def _summary(part: Callable) -> str:
    return " ".join((inspect.getdoc(part) or "").partition("\n\n")[0].split()).replace("<", "\\<")


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
