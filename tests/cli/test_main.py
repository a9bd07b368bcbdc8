import importlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from dalle_cli import __version__
from tests.cli.conftest import one_line

module = importlib.import_module("dalle_cli.cli.main")  # the package's own `main` is the function


def run(*words, **options):
    command = [sys.executable, "-m", "dalle_cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def commands():
    """Every command and group below `dalle`, by the words that name it."""
    found = {}

    def walk(words, group):
        for name, command in group.commands.items():
            found[(*words, name)] = command
            if hasattr(command, "commands"):
                walk((*words, name), command)

    walk((), typer.main.get_command(module.load()))
    return found


COMMANDS = commands()


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['dalle', '--help']\n"
        "from dalle_cli.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'accelerate', 'omegaconf', 'numpy', 'PIL', 'safetensors', 'regex', 'yaml', 'rich')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr == "[]\n"
    assert "train-clip" in ended.stdout


@pytest.mark.parametrize("words", [("--help",), ("recipes",), ("data", "--help")])
def test_help_is_fast(words):
    """In a fraction of the time of importing torch: processors differ, and other tests run at the same time."""

    def seconds(command):
        times = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *command], capture_output=True, timeout=120, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(times)  # of the processor

    assert seconds(("-m", "dalle_cli", *words)) < 0.4 * seconds(("-c", "import torch"))


def test_summaries_are_one_line():
    assert len(COMMANDS) >= 15
    for words, command in COMMANDS.items():
        first = (command.help or "").strip().splitlines()[0]
        assert 10 < len(first) < 110, words
        assert first.endswith("."), words


@pytest.mark.parametrize("words", sorted(COMMANDS), ids=" ".join)
def test_every_command_has_help(dalle, words):
    ended = dalle(*words, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert "Usage" in ended.out


def test_version(dalle):
    assert dalle("--version").out == f"dalle {__version__}\n"


def test_debug_shows_the_traceback(tmp_path):
    quiet = run("recipes", "clp", cwd=tmp_path)
    assert (quiet.returncode, one_line(quiet.stderr)) == (2, True)
    loud = run("--debug", "recipes", "clp", cwd=tmp_path)
    assert "Traceback" in loud.stderr
    assert "RecipeError: no family 'clp'" in loud.stderr


def closed(words, folder):
    """Run a command whose standard output is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-m", "dalle_cli", *words], stdout=writing, stderr=subprocess.PIPE, text=True, cwd=folder
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize("words", [("recipes",), ("show", "clip/tiny")])
def test_closed_pipe_ends_quietly(words, tmp_path):
    ended = closed(words, tmp_path)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_full_disk_is_one_line(tmp_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "dalle_cli", "recipes"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert ended.returncode == 1
    assert one_line(ended.stderr)
    assert "No space left" in ended.stderr
