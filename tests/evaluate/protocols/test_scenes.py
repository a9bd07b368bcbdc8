import io
import json
import os
import random
import sys

import pytest
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.data.scenes.grammar import parse
from dalle_cli.data.scenes.objects import load_object_set
from dalle_cli.data.scenes.render import place
from dalle_cli.data.scenes.render import render as render_scene
from dalle_cli.evaluate import suite
from tests.cli.conftest import one_line

SHAPES = load_object_set("shapes")


def render(path, text):
    """Write the image of a caption, and the caption next to it."""
    scene = parse(text, SHAPES)
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(render_scene(scene, place(scene, random.Random(1)), 64, True)).save(path)
    path.with_suffix(".txt").write_text(text)


@pytest.fixture
def scenes(dalle):
    return lambda *words, **how: dalle("evaluate", "scenes", *words, "--objects", "shapes", "-q", **how)


def test_given_images_are_checked(scenes, tmp_path, monkeypatch):
    render(tmp_path / "in" / "0.png", "a red circle")
    render(tmp_path / "in" / "1.png", "a blue star left of a pink heart on a grey background")
    line = scenes("in").result
    assert (line["path"], line["num_images"]) == ("in", 2)
    assert line["exact_match"] == {"single": 1.0, "relation": 1.0}
    lines = [{"path": "in/0.png", "prompt": "a red circle"}, {"path": "in/0.png", "prompt": "a green square"}]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert scenes("-").result["exact_match"] == {"single": 0.5}


def test_system_is_evaluated_by_number_of_candidates(scenes, dalle, tiny):
    words = ("--recipe", tiny.recipe, "-n", "5", "--rerank", "1,2")
    one, two = scenes(*words).results
    assert (one["rerank"], two["rerank"]) == (1, 2)
    assert one["num_images"] == two["num_images"] == 5
    assert set(one["accuracy"]) == set(suite.CATEGORIES)
    assert set(one["exact_match"].values()) == {0.0}  # the network is untrained
    captions = {item.caption for item in suite.suite(SHAPES, 5)}
    for count in (1, 2):
        folder = f"out/scenes/rerank-{count}"
        assert len(os.listdir(folder)) == 5
        assert os.path.getsize(f"{folder}.png") > 0
        prompts = {dalle("inspect", f"{folder}/{name}").result["dalle"]["prompt"] for name in os.listdir(folder)}
        assert prompts == captions
    again = scenes(*words)
    assert (again.code, one_line(again.err)) == (73, True)
    assert scenes(*words, "--overwrite").results == [one, two]


def test_accuracy_is_plotted_against_guidance_scale(scenes, glide):
    words = ("--recipe", glide.decoder, "-n", "5", "--steps", "2")
    first, second, curves = scenes(*words, "--guidance-scale", "1,2.5").results
    assert (first["guidance_scale"], second["guidance_scale"]) == (1, 2.5)
    assert curves["guidance_scales"] == [1, 2.5]
    for name in suite.CATEGORIES:
        assert curves["accuracy"][name] == [first["accuracy"][name], second["accuracy"][name]]
    assert os.path.getsize(curves["path"]) > 0
    assert len(os.listdir("out/scenes/guidance-scale-2.5/rerank-1")) == 5
    text = scenes(*words, "--guidance-scale", "1,2", "--overwrite", terminal=True).out
    assert "accuracy against guidance scale" in text
    line = scenes(*words).result  # without a CLIP there is nothing to rerank with
    assert (line["rerank"], line["guidance_scale"]) == (1, None)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--guidance-scale", "1,x"), 2, "'1,x': expected numbers"),
        (("--rerank", "1,x"), 2, "'1,x': expected integers"),
        (("--rerank", "0"), 2, "from 1 to"),
        (("none",), 3, "no folder 'none'"),
    ],
)
def test_usage_errors_are_one_line(scenes, words, code, message):
    ended = scenes(*words)
    assert (ended.code, ended.out, one_line(ended.err)) == (code, "", True), ended.err
    assert message in ended.err


def test_existing_files_are_found_before_any_model_is_loaded(scenes, tiny, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(checkpoint, "load", fail)
    sheet = tmp_path / "out" / "scenes" / "rerank-1.png"
    render(sheet.parent / "rerank-1" / "a.png", "a red circle")
    sheet.write_text("mine")
    ended = scenes("--recipe", tiny.recipe, "-n", "5", "--rerank", "1")
    assert (ended.code, one_line(ended.err)) == (73, True)
    sheet.unlink()
    ended = scenes("--recipe", tiny.recipe, "-n", "5", "--rerank", "2,1")
    assert (ended.code, one_line(ended.err)) == (73, True)
    assert "out/scenes/rerank-1 already holds images: give --overwrite or another --out" in ended.err
