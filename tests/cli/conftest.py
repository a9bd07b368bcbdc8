"""The command line, run in this process from an empty folder."""

import json
import os
import sys
from dataclasses import dataclass

import pytest
import typer.main

from dalle_cli.cli.main import load, main


@dataclass
class Ended:
    """Exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str

    @property
    def results(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def result(self) -> dict:
        (one,) = self.results
        return one


@pytest.fixture
def dalle(capsys, monkeypatch, tmp_path):
    """Run a command. terminal: with standard output on a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DALLE_DEBUG", raising=False)
    monkeypatch.delenv("DALLE_DATA", raising=False)

    def run(*words: object, terminal: bool = False) -> Ended:
        capsys.readouterr()
        if accelerate := sys.modules.get("accelerate.state"):  # it would keep the choices of an earlier run
            accelerate.AcceleratorState._reset_state(reset_partial_state=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["dalle", *map(str, words)])
            patch.setattr(sys.stdout, "isatty", lambda: terminal)
            patch.setenv("COLUMNS", "100")
            with pytest.raises(SystemExit) as ended:
                main()
        os.environ.pop("DALLE_DEBUG", None)
        return Ended(ended.value.code or 0, *capsys.readouterr())

    return run


def one_line(text: str) -> bool:
    """Tell whether standard error is the one printable line of a failure."""
    return text.startswith("dalle: ") and text.count("\n") == 1 and text[:-1].isprintable()


@pytest.fixture(scope="session")
def commands() -> dict:
    """Every command and group below `dalle`, by the words that name it."""
    found = {}

    def walk(words, group):
        for name, command in group.commands.items():
            found[(*words, name)] = command
            if hasattr(command, "commands"):
                walk((*words, name), command)

    walk((), typer.main.get_command(load()))
    return found
