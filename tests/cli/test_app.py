import importlib
import re

import pytest

from dalle_cli.cli.main import load
from dalle_cli.data.source import DataError
from dalle_cli.exits import Failure
from dalle_cli.registry import RecipeError
from tests.cli.conftest import one_line

module = importlib.import_module("dalle_cli.cli.app")
load()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failure("no space"), 1),
        (Failure("already exists", 73), 73),
        (RecipeError("model.widht: no"), 2),
        (DataError("no images"), 3),
        (OSError("the disk is on fire"), 1),
        (RuntimeError("out of memory"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_are_one_line_with_a_code(dalle, monkeypatch, error, code):
    def fail(**_):
        raise error

    monkeypatch.setattr(module, "app", fail)
    ended = dalle()
    assert (ended.code, ended.out) == (code, "")
    assert one_line(ended.err)
    assert str(error) in ended.err


def test_internal_errors_show_the_traceback_on_request(dalle, monkeypatch):
    def fail(**_):
        return {}["x"]

    monkeypatch.setattr(module, "app", fail)
    ended = dalle()
    assert ended.code == 1
    assert one_line(ended.err)
    assert "internal error, KeyError" in ended.err
    monkeypatch.setenv("DALLE_DEBUG", "1")
    with pytest.raises(KeyError):
        module.run()


def test_file_errors_name_the_file(dalle, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "app", lambda **_: (tmp_path / "none").read_bytes())
    assert dalle().err == f"dalle: {tmp_path}/none: No such file or directory\n"


def test_control_characters_in_errors_are_replaced(dalle, monkeypatch):
    def fail(**_):
        raise DataError("bad\x1b[31m\n\u202ename\ud800")

    monkeypatch.setattr(module, "app", fail)
    assert one_line(dalle().err)


def test_unknown_commands_and_options(dalle):
    for words, said in (
        (("smaple",), "dalle: No such command 'smaple'. Did you mean 'sample'?; see dalle --help\n"),
        (("recipes", "--jsno"), "dalle: No such option: --jsno (Possible options: --json); see dalle recipes --help\n"),
    ):
        ended = dalle(*words)
        assert (ended.code, ended.out, ended.err) == (2, "", said)


@pytest.mark.parametrize("words", [(), ("data",), ("evaluate",), ("probe",)])
def test_bare_group_prints_help(dalle, words):
    ended = dalle(*words)
    assert (ended.code, ended.err) == (2, "")
    assert ended.out.split() == dalle(*words, "--help").out.split()
    assert ended.out.count("\n") > 10


def test_help_lists_groups(dalle):
    page = dalle("--help").out
    sections = re.findall(r"^(\w[\w ]*):$", page, flags=re.M)
    assert sections == ["First commands", *module.GROUPS, "Options"]
    first = page[page.index("First commands") : page.index("Train:")]
    assert first.count("dalle ") == 3
    train, create = page.index("Train:"), page.index("Create:")
    assert train < page.index("  train-clip ", train) < create < page.index("  sample ", create)


def test_examples_are_printed_one_per_line(dalle):
    page = dalle("vary", "--help").out
    lines = page[page.index("Examples:") :].splitlines()[1:]
    examples = [line.strip() for line in lines if line.strip()]
    assert len(examples) >= 2
    assert all(line.startswith("dalle ") for line in examples)


def test_system_options_have_their_own_panel(dalle):
    page = dalle("sample", "--help").out
    start = page.index("GLIDE and unCLIP ─")
    assert "--guidance-interval" in page[start : page.index("╰", start)]
    assert "--temperature" not in page[start : page.index("╰", start)]


def test_long_errors_keep_cause_and_remedy(dalle, monkeypatch):
    def fail(**_):
        raise Failure(f"cause {'x' * 9_999} remedy")

    monkeypatch.setattr(module, "app", fail)
    said = dalle().err
    assert said.startswith("dalle: cause x")
    assert said.endswith("x remedy\n")
    assert len(said) < 1000
