from pathlib import Path

import pytest

from tests.cli.conftest import one_line


def test_command_checks_endpoints_and_paths(evaluate_latents):
    line = evaluate_latents("interpolate", "--sheet", "s.png").result
    assert (line["noise"], line["num_paths"], line["endpoints"], line["paths"]) == ("slerp", 2, 0, 0)
    assert [len(list(Path("out/interpolate", name).iterdir())) for name in ("inputs", "generated")] == [3, 3]
    assert Path("s.png").stat().st_size > 0
    assert evaluate_latents("interpolate", "--noise", "fixed", "--out", "b").result["noise"] == "fixed"


def test_identity_shows_all_endpoints(evaluate_latents, identity):
    line = evaluate_latents("interpolate").result
    assert (line["endpoints"], line["paths"]) == (1, 1)
    assert "both ends: 100.0%" in evaluate_latents("interpolate", "--overwrite", terminal=True).out


@pytest.mark.parametrize(
    ("words", "message"), [(("--recipe", "glide"), "needs one of type unclip"), (("--noise", "loud"), "slerp")]
)
def test_usage_errors_are_one_line(evaluate_latents, words, message):
    ended = evaluate_latents("interpolate", *words, code=2)
    assert (ended.out, one_line(ended.err)) == ("", True), ended.err
    assert message in ended.err
