import typing
from collections import defaultdict

import pytest
import typer

from dalle_cli.cli import options


def shared() -> dict[str, typing.Any]:
    """Typer's option or argument of every alias."""
    aliases = {name: typing.get_args(alias) for name, alias in vars(options).items() if name[0].isupper()}
    return {name: arguments[-1] for name, arguments in aliases.items() if len(arguments) == 2}


def test_every_option_is_explained():
    assert len(shared()) > 20
    for name, info in shared().items():
        assert info.help, name
        assert info.help.endswith((".", "DALLE_DATA.")), name


def test_shared_flags_mean_one_thing(commands):
    """A flag of the table is declared by a command only through the table."""
    ours = {flag: info.help for info in shared().values() for flag in (info.default, *(info.param_decls or ()))}
    unlike = defaultdict(list)
    for words, command in commands.items():
        for parameter in command.params:
            for flag in {"--guidance-interval", "--skip-existing", "--offload", "--batch-size"} & set(parameter.opts):
                if parameter.help != ours[flag]:
                    unlike[flag].append(words)
    assert not unlike


@pytest.mark.parametrize(("text", "values"), [("1", [1]), ("1,2,5", [1, 2, 5]), ([3], [3])])
def test_numbers_are_read(text, values):
    assert options.numbers(int, 1, 9)(text) == values


@pytest.mark.parametrize("text", ["", "x", "1,", "10", "1.5"])
def test_other_numbers_are_refused(text):
    with pytest.raises(typer.BadParameter, match="expected integers from 1 to 9, separated by commas"):
        options.numbers(int, 1, 9)(text)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_batch_sizes_are_checked(dalle, text):
    ended = dalle("sample", "x", "--batch-size", text)
    assert ended.code == 2
    assert "expected auto or a positive integer" in ended.err


def test_processes_end_the_command_with_their_code(dalle, tiny, monkeypatch):
    launched = []
    monkeypatch.setattr("dalle_cli.launch.launch", lambda count, command: launched.append((count, command)) or 73)
    monkeypatch.delenv("RANK", raising=False)
    for words in (("sample", "a cat"), ("reconstruct", "a.png"), ("vary", "a.png"), ("upscale", "a.png")):
        assert dalle(*words, "--processes", 2).code == 73
    assert [command[-4:] for _, command in launched[:1]] == [["sample", "a cat", "--processes", "2"]]
    assert [count for count, _ in launched] == [2, 2, 2, 2]
