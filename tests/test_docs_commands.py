"""Every command in the documentation is one that the program accepts, with recipes, keys and models that exist."""

import re
import shutil
from itertools import chain
from pathlib import Path

import pytest

from dalle_cli import checkpoint, recipe
from dalle_cli.cli.app import UsageError
from dalle_cli.recipe import FAMILIES
from dalle_cli.training import start
from tests.fixtures.docs import (
    PAGE_IDS,
    PAGES,
    ROOT,
    SCRIPTS,
    Command,
    commands,
    dalle_words,
    parse,
    segments,
    shell_lines,
)

COMMANDS = commands()
TRAINING = {command: family for family, command in FAMILIES.items() if command.startswith("train-")}
# Programs other than dalle that blocks may run.
PROGRAMS = {
    "python3", "python", "pip", "pipx", "apt", "make", "git", "sbatch", "torchrun", "accelerate", "jq", ".",
}  # fmt: skip


def test_commands_are_found():
    assert len(COMMANDS) > 150


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command_parses(command: Command):
    if command.words[-1] in ("--help", "--version"):
        return
    try:
        parse(command.words)
    except Exception as error:
        if not (command.mention and type(error).__name__ in ("MissingParameter", "Exit")):
            raise


def test_parsing_is_strict():
    """A missing argument, an unknown option and a bad value each fail."""
    for words in (("rerank",), ("sample", "a cat", "--nonsense"), ("sample", "a cat", "-n", "x"), ("train-tokenizer",)):
        with pytest.raises(UsageError):
            parse(words)


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.words[0] in TRAINING and not one.mention], ids=str)
def test_recipe_and_overrides_are_valid(command: Command, monkeypatch: pytest.MonkeyPatch):
    name, values, _ = parse(command.words)
    family, overrides = TRAINING[name], list(values["overrides"] or ())
    if str(values["recipe"]).endswith(".yaml"):
        return
    monkeypatch.setattr(start, "infer_type", lambda path: "shards" if path.endswith(".tar") else "folder")
    if not any(word.startswith(("data.path=", "data.type=")) for word in overrides):
        monkeypatch.setenv("DALLE_DATA", "/data")
    if family == "tokenizer":
        recipe.load(values["recipe"], family, overrides, checkpoint.accepted_arguments)
    else:
        start.resolve(family, values["recipe"], overrides, lambda line: None)


def test_models_are_trained_or_imported_by_other_commands():
    """A checkpoint that a command uses ships with the package, or another command in the documentation makes it."""
    made = {f"{family}-{path.stem}" for family in FAMILIES for path in (ROOT / "recipes" / family).glob("*.yaml")}
    for command in COMMANDS:
        words = command.words
        made |= {words[i + 1] for i, word in enumerate(words[:-1]) if word == "--run"}
        if words[0] in ("import", "export", "train-tokenizer", "embed"):
            made |= {Path(words[i + 1]).name for i, word in enumerate(words[:-1]) if word == "--out"}
    starters = {f"starter/{path.stem}" for path in (ROOT / "dalle_cli/starter").glob("*.safetensors")}
    systems = set(recipe.names("systems"))
    unknown = []
    for command in COMMANDS:
        words = command.words
        if command.page == "docs/commands.md":  # examples of the program's help
            continue
        used = {words[i + 1] for i, word in enumerate(words[:-1]) if word == "--model"}
        if words[0] not in (*TRAINING, "check"):
            used |= {words[i + 1] for i, word in enumerate(words[:-1]) if word == "--recipe"} - systems
        used |= {word.partition("=")[2] for word in words if word.startswith(("frozen.", "train.init_from="))}
        for name in used:
            known = name in starters or Path(name).name in made or name.endswith(".yaml")
            unknown += [] if known else [f"{command}: {name}"]
    assert not unknown


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_other_programs_are_known(path: Path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in shell_lines(path):
        for words in segments(line):
            if not words or dalle_words(words) is not None:
                continue
            assert words[0] in PROGRAMS, line
            if words[0] == "make":
                targets = [word for word in words[1:] if "=" not in word]
                assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets), line
            if words[0] == "pip":
                _check_extras(line)


def _check_extras(line: str) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.search(r"\[project\.optional-dependencies\](.*?)\n\[", project, re.S)
    assert extras
    for name in chain(*(match.split(",") for match in re.findall(r"\.\[([\w,]+)\]", line))):
        assert re.search(rf"^{name} =", extras[1], re.M), f"{line}: no extra {name}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_example_scripts_are_valid_shell(path: Path):
    import subprocess

    bash = shutil.which("bash")
    if not bash:
        pytest.skip("bash is not installed")
    assert subprocess.run([bash, "-n", str(path)], capture_output=True).returncode == 0
