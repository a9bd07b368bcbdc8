import io
import json
import sys

import pytest
from PIL import Image

from tests.cli.conftest import one_line
from tests.fixtures.miniatures import noise


@pytest.fixture
def images(tmp_path):
    noise(1, 24, 16).save(tmp_path / "dog.png")
    noise(2, 17, 30).save(tmp_path / "cat.png")


@pytest.fixture
def pipe(dalle, monkeypatch):
    """Run commands, each reading what the one before it printed."""

    def run(text, *commands):
        for words in commands:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
            ended = dalle(*words, "-q")
            assert ended.code == 0, ended.err
            text = ended.out
        return ended.results

    return run


def test_commands_pipe_into_each_other(pipe, unclip, tiny):
    how = ("--recipe", unclip.recipe, "--steps", 2)
    first = ("sample", "-", *how, "-n", 3, "--out", "sampled")
    best = ("rerank", "--top", 2, "-", "--model", tiny.clip)
    lines = 'a star\n{"prompt": "a circle", "mood": "glad"}\n'
    results = pipe(lines, first, best, ("vary", "-", *how, "-n", 2, "--out", "a", "--sheet", "a.png"))
    assert [one["prompt"] for one in results] == ["a star"] * 4 + ["a circle"] * 4
    assert results[7]["mood"] == "glad"
    assert results[0]["image"].startswith("sampled/")
    assert results[0]["eta"] == 0.7
    results = pipe(lines, (*first, "--overwrite"), best, ("interpolate", "-", *how, "--frames", 3, "--gif", "b.gif"))
    assert len(results) == 7
    assert [one["prompt"] for one in results] == ["a star"] * 3 + ["a circle"] * 4
    assert Image.open("b.gif").n_frames == 12
    results = pipe(
        lines,
        (*first, "--overwrite"),
        best,
        ("edit", "-", *how, "--to", "a ring", "--strength", "0.1,0.4", "--out", "c"),
    )
    assert [(one["from"], one["prompt"], one["strength"]) for one in results[:2]] == [
        ("a star", "a ring", 0.1), ("a star", "a ring", 0.4),
    ]  # fmt: skip
    again = pipe("".join(json.dumps(one) + "\n" for one in results), ("vary", "-", *how, "--out", "d"))
    assert [one["image"] for one in again] == [one["path"] for one in results]
    assert all(one["prompt"] == "a ring" for one in again)


@pytest.mark.usefixtures("images")
def test_terminal_shows_a_table(dalle, unclip):
    ended = dalle("vary", "dog.png", "--eta", "0,1", "--recipe", unclip.recipe, "--steps", 2, "-q", terminal=True)
    assert ended.code == 0, ended.err
    assert ended.out.split()[:6] == ["index", "seed", "eta", "similarity", "psnr", "path"]
    assert len(ended.out.splitlines()) == 3
    ended = dalle("vary", "dog.png", "--recipe", unclip.recipe, "--dry-run", "--out", "none")
    assert (ended.code, ended.out) == (0, "")
    assert "1 files in none" in ended.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("vary", "dog.png", "--eta", "2"), 2, "--eta"),
        (("vary", "dog.png", "--eta", "0,2"), 2, "numbers from 0 to 1"),
        (("vary", "dog.png", "--crop", "left"), 2, "choose center or pad"),
        (("vary", "none.png"), 3, "no file 'none.png'"),
        (("edit", "dog.png"), 3, "edit to what"),
        (("edit", "dog.png", "--to", "x", "--strength", "much"), 2, "'much'"),
        (("interpolate", "dog.png"), 3, "needs at least two endpoints"),
        (("interpolate", "dog.png", "cat.png", "--noise", "white"), 2, "choose slerp or fixed"),
        (("interpolate", "dog.png", "cat.png", "--frames", "1"), 2, "--frames"),
        (("interpolate", "dog.png", "cat.png", "--sheet", "x.jpg"), 2, "ends in .png"),
    ],
)
@pytest.mark.usefixtures("images")
def test_errors_are_one_line(dalle, unclip, words, code, said):
    ended = dalle(*words, "--recipe", unclip.recipe)
    assert (ended.code, one_line(ended.err)) == (code, True), ended.err
    assert said in ended.err


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    "words", [("vary", "dog.png"), ("edit", "dog.png", "--to", "x"), ("interpolate", "dog.png", "cat.png")]
)
def test_missing_weights_are_named(dalle, words):
    ended = dalle(*words, "--recipe", "unclip-tiny")
    assert (ended.code, one_line(ended.err)) == (3, True)
    assert "no checkpoint 'checkpoints/" in ended.err


@pytest.mark.usefixtures("images")
def test_texts_need_a_prior(dalle, unclip, tmp_path):
    parts = f"{{decoder: {unclip.decoder}, clip: {unclip.clip}}}"
    (tmp_path / "plain.yaml").write_text(f"system: {{type: unclip}}\nparts: {parts}\n")
    ended = dalle("interpolate", "dog.png", "a snowman", "--recipe", "plain.yaml", "-q")
    assert (ended.code, one_line(ended.err)) == (2, True)
    assert "parts.prior" in ended.err


@pytest.mark.usefixtures("images")
def test_cropping_is_said_once_and_padding_avoids_it(dalle, unclip):
    noise(3, 16, 16).save("square.png")
    words = ("--recipe", unclip.recipe, "--steps", 2, "--precision", "float32")
    cropped = dalle("vary", "square.png", "dog.png", "cat.png", *words, "--eta", 0, "--out", "a")
    assert cropped.code == 0
    lines = [line for line in cropped.err.splitlines() if "--crop pad" in line]
    assert len(lines) == 1
    assert "dog.png of 24x16 px and 1 more are cropped to the middle square" in lines[0]
    padded = dalle("vary", "dog.png", *words, "--eta", 0, "--crop", "pad", "--out", "b")
    assert "cropped" not in padded.err
    assert padded.result["psnr"] != cropped.results[1]["psnr"]
    assert "cropped" not in dalle("vary", "square.png", *words, "--out", "c").err
    assert "cropped" not in dalle("vary", "dog.png", *words, "--out", "d", "-q").err
