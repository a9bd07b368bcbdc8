"""Every command in README.md is one that the program takes, and every file that it names is there."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from dalle_cli.cli.main import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = {"|", ">", "<", ">>", "\\"}


def commands():
    """The `dalle ...` commands of the code blocks and of the text, as lists of words without what is the shell's."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`(dalle [^`]+)`", README)
    for line in lines:
        words = shlex.split(line, comments=True)
        starts = [i for i, word in enumerate(words) if word == "dalle"]
        for start in starts:
            rest = words[start + 1 :]
            end = next((i for i, word in enumerate(rest) if word in SHELL), len(rest))
            if "..." not in rest[:end]:
                yield rest[:end]


def test_there_are_commands_to_check():
    assert len(list(commands())) > 20


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_a_command_is_understood(words):
    command = typer.main.get_command(load())
    context = command.make_context("dalle", list(words), resilient_parsing=True)
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, list(words))
        context = command.make_context(
            name, list(words), parent=context, resilient_parsing=hasattr(command, "commands")
        )


def test_the_files_it_shows_are_there():
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path
