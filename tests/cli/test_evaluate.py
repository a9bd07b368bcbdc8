import pytest

from dalle_cli.cli import evaluate
from dalle_cli.evaluate import protocol
from tests.cli.conftest import one_line


def test_every_protocol_is_a_command(commands):
    for group, folder in (("evaluate", protocol.PROTOCOLS), ("probe", protocol.PROBES)):
        names = {words[1] for words in commands if len(words) == 2 and words[0] == group}
        assert names == {name.replace("_", "-") for name in protocol.names(folder)}
        assert names


def test_options_are_the_parameters_of_the_function(commands):
    parameters = {one.name: one for one in commands["evaluate", "interpolate"].params}
    assert {"recipe", "num_paths", "noise", "guidance_scale", "steps", "out", "sheet", "dry_run"} <= set(parameters)
    assert parameters["num_paths"].opts == ["-n", "--num-paths"]
    assert parameters["out"].default == "out/interpolate"
    assert "progress" not in parameters
    positional = [one.name for one in commands["probe", "typographic"].params if one.param_type_name == "argument"]
    assert positional == ["image", "word"]


def test_options_have_help_and_dashes(commands):
    for words, command in commands.items():
        if words[0] in ("evaluate", "probe") and not hasattr(command, "commands"):
            for one in command.params:
                assert one.help, (words, one.name)
                assert all("_" not in flag for flag in one.opts), (words, one.opts)


def test_group_page_lists_protocols_without_importing_them(dalle, monkeypatch):
    monkeypatch.setattr(protocol, "load", None)
    for group, name in (("evaluate", "retrieval"), ("probe", "binding")):
        ended = dalle(group, "--help", terminal=True)
        assert (ended.code, name in ended.out) == (0, True)


def test_unknown_protocol_is_a_usage_error(dalle):
    ended = dalle("evaluate", "retrievel")
    assert (ended.code, one_line(ended.err)) == (2, True)
    assert "retrieval" in ended.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("dvae", "--model", "gone"), 3, "no checkpoint 'gone'"),
        (("dvae", "--model", "CLIP"), 3, "holds a 'clip', where a 'dvae' or a 'vqgan' is needed"),
        (("dvae", "--model", "DVAE", "--objects", "shape"), 2, "did you mean 'shapes'"),
        (("dvae", "--precision", "int3"), 2, "--precision int3"),
        (("dvae", "modle.type=x"), 2, "only data.* keys are possible here"),
        (("retrieval", "-n", "5"), 2, "--num-samples 5 is below --pool-size 100"),
        (("retrieval", "nowhere"), 3, "nowhere"),
    ],
)
def test_usage_errors_are_one_line(dalle, tiny, words, code, message):
    known = {"CLIP": tiny.clip, "DVAE": tiny.dvae}
    ended = dalle("evaluate", *(known.get(word, word) for word in words))
    assert (ended.code, ended.out, one_line(ended.err)) == (code, "", True), ended.err
    assert message in ended.err


def test_parameter_without_an_option_is_refused():
    def broken(mystery: int = 1) -> protocol.Result:
        return protocol.Result()

    with pytest.raises(TypeError, match="parameter 'mystery' is no shared option"):
        evaluate._parameters(broken)
