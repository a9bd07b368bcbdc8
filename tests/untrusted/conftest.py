"""Files made to break the program, and a folder whose every change is seen."""

import importlib
import io
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from dalle_cli.recipe import to_yaml
from dalle_cli.text.learn import learn
from tests.cli.conftest import Ended, dalle  # noqa: F401  (a fixture)
from tests.training.conftest import RECIPE
from tests.untrusted.made import checkpoints, images, prompts, shards, tables
from tests.untrusted.watching import watching

module = importlib.import_module("dalle_cli.cli.app")

Run = Callable[..., Ended]

LIMIT = 10.0  # seconds a fuzzed case may take; most take milliseconds
CODES = {0, 1, 2, 3, 4, 73}


@pytest.fixture(scope="session")
def files(tiny, tmp_path_factory) -> Path:
    """A folder of good and untrusted files, which every command only reads."""
    folder = tmp_path_factory.mktemp("files")
    for name, content in {**images(), **shards(folder), **tables(), **prompts(), **checkpoints(tiny.dvae)}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "made.tar").unlink()
    for name in ("dvae", "clip", "dalle"):
        (folder / f"{name}.safetensors").write_bytes(Path(getattr(tiny, name)).read_bytes())
    (folder / "tiny.yaml").write_text(Path(tiny.recipe).read_text())
    (folder / "train.yaml").write_text(to_yaml(RECIPE))
    (folder / "empty").mkdir()
    learn(["a red circle"] * 3, 520, "dalle").save(folder / "learned.json")
    return folder


def is_deliberate(error: BaseException) -> bool:
    """Whether an error was raised deliberately: a class of the package, a `raise` in it, or an error about a file."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = frames and "dalle_cli" in frames[-1].filename and (frames[-1].line or "").startswith("raise")
    about_a_file = isinstance(error, OSError) and error.filename
    return bool(type(error).__module__.startswith("dalle_cli") or ours or about_a_file)


def tree(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(dalle, files, tmp_path, monkeypatch) -> Run:  # noqa: F811
    """Run a command in an empty folder, deep enough below `tmp_path` for `..` to stay in it.

    `@` in a word is the folder of untrusted files. Errors that end the command must be deliberate.
    """
    here = tmp_path / "one" / "two"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    end = module._end

    def ended(error: BaseException, *rest) -> None:
        assert is_deliberate(error), repr(error)
        end(error, *rest)

    monkeypatch.setattr(module, "_end", ended)

    def command(*words: str, stdin: bytes = b"", **how) -> Ended:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return dalle(*(word.replace("@", f"{files}/") for word in words), **how)

    return command


@pytest.fixture
def attempt(run, tmp_path) -> Callable[..., int]:
    """Run a command; writes elsewhere, unexpected errors and hangs are failures."""

    def command(case: object, *words: str, stdin: bytes = b"") -> int:
        try:
            with watching(tmp_path, LIMIT) as elsewhere:
                ended = run(*words, stdin=stdin)
            assert not elsewhere
            assert ended.code in CODES
            assert "internal error" not in ended.err
            assert all(line.isprintable() for line in ended.err.splitlines())
            return ended.code
        except BaseException as error:
            message = f"{type(error).__name__}: {str(error)[:500]}"
            raise AssertionError(f"case {case}: {message}; {' '.join(words)[:300]}") from error

    return command
