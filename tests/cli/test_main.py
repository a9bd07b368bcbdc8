import contextlib
import importlib
import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from dalle_cli import __version__
from dalle_cli.data.source import DataError
from dalle_cli.exits import Failure
from dalle_cli.registry import RecipeError
from tests.cli.conftest import one_line

module = importlib.import_module("dalle_cli.cli.main")  # the package's own `main` is the function


def run(*words, **options):
    command = [sys.executable, "-m", "dalle_cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def commands():
    """Every command and group below `dalle`, by the words that name it."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(sys, "argv", ["dalle", "--version"])
        with pytest.raises(SystemExit):
            module.main()  # registers them
    found = {}

    def walk(words, group):
        for name, command in group.commands.items():
            found[(*words, name)] = command
            if hasattr(command, "commands"):
                walk((*words, name), command)

    walk((), typer.main.get_command(module.app))
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
def test_help_and_lists_are_there_at_once(words):
    """In a part of the time that importing torch takes: processors differ, and other tests run beside."""

    def seconds(command):
        times = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *command], capture_output=True, timeout=120, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(times)  # of the processor

    assert seconds(("-m", "dalle_cli", *words)) < 0.4 * seconds(("-c", "import torch"))


def test_every_command_says_in_a_line_what_it_does():
    assert len(COMMANDS) >= 15
    for words, command in COMMANDS.items():
        first = (command.help or "").strip().splitlines()[0]
        assert 10 < len(first) < 100, words
        assert first.endswith("."), words


@pytest.mark.parametrize("words", sorted(COMMANDS), ids=" ".join)
def test_every_command_has_help(dalle, words):
    ended = dalle(*words, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert "Usage" in ended.out


def test_the_version(dalle):
    assert dalle("--version").out == f"dalle {__version__}\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failure("no space"), 1),
        (Failure("there already", 73), 73),
        (RecipeError("model.widht: no"), 2),
        (DataError("no pictures"), 3),
        (OSError("the disk is on fire"), 1),
        (RuntimeError("out of memory"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_end_in_a_line_and_their_code(dalle, monkeypatch, error, code):
    def fail(**_):
        raise error

    monkeypatch.setattr(module, "app", fail)
    ended = dalle()
    assert (ended.code, ended.out) == (code, "")
    assert one_line(ended.err)
    assert str(error) in ended.err


def test_a_mistake_of_ours_is_called_one_and_shows_where_only_when_asked(dalle, monkeypatch):
    def fail(**_):
        return {}["x"]

    monkeypatch.setattr(module, "app", fail)
    ended = dalle()
    assert ended.code == 1
    assert one_line(ended.err)
    assert "internal error, KeyError" in ended.err
    monkeypatch.setenv("DALLE_DEBUG", "1")
    with pytest.raises(KeyError):
        module.main()


def test_an_error_about_a_file_names_it(dalle, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "app", lambda **_: (tmp_path / "none").read_bytes())
    assert dalle().err == f"dalle: {tmp_path}/none: No such file or directory\n"


def test_names_in_errors_do_not_drive_the_terminal(dalle, monkeypatch):
    def fail(**_):
        raise DataError("bad\x1b[31m\n\u202ename\ud800")

    monkeypatch.setattr(module, "app", fail)
    assert one_line(dalle().err)


def test_an_unknown_command_or_option_is_a_usage_error(dalle):
    for words, said in (
        (("smaple",), "dalle: No such command 'smaple'. Did you mean 'sample'?; see dalle --help\n"),
        (("recipes", "--jsno"), "dalle: No such option: --jsno (Possible options: --json); see dalle recipes --help\n"),
    ):
        ended = dalle(*words)
        assert (ended.code, ended.out, ended.err) == (2, "", said)


def test_a_group_alone_shows_its_help(dalle):
    ended = dalle("data")
    assert (ended.code, ended.err) == (2, "")
    assert "Usage" in ended.out


def test_what_a_long_error_says_first_and_last_stays(dalle, monkeypatch):
    def fail(**_):
        raise Failure(f"cause {'x' * 9_999} remedy")

    monkeypatch.setattr(module, "app", fail)
    said = dalle().err
    assert said.startswith("dalle: cause x")
    assert said.endswith("x remedy\n")
    assert len(said) < 1000


def test_debug_shows_the_traceback_and_nothing_else_does(tmp_path):
    quiet = run("recipes", "clp", cwd=tmp_path)
    assert (quiet.returncode, one_line(quiet.stderr)) == (2, True)
    loud = run("--debug", "recipes", "clp", cwd=tmp_path)
    assert "Traceback" in loud.stderr
    assert "RecipeError: no family 'clp'" in loud.stderr


def closed(words, folder):
    """A command whose standard output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-m", "dalle_cli", *words], stdout=writing, stderr=subprocess.PIPE, text=True, cwd=folder
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize("words", [("recipes",), ("show", "clip/tiny")])
def test_a_closed_pipe_ends_quietly(words, tmp_path):
    ended = closed(words, tmp_path)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_said_in_a_line(tmp_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "dalle_cli", "recipes"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert ended.returncode == 1
    assert one_line(ended.stderr)
    assert "No space left" in ended.stderr
