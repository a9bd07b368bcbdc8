import io
import json
import os
import random
import sys

import pytest
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.data.scenes.draw import draw, place
from dalle_cli.data.scenes.glyphs import glyph_set
from dalle_cli.data.scenes.grammar import parse
from dalle_cli.evaluate import codec, retrieval, suite
from tests.cli.conftest import one_line

SHAPES = glyph_set("shapes")


def picture(path, text):
    """Draw a caption into a file, with its caption beside it."""
    scene = parse(text, SHAPES)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(draw(scene, place(scene, random.Random(1)), 64, True)).save(path)
    path.with_suffix(".txt").write_text(text)


def test_the_figures_of_a_dvae(dalle, tiny):
    words = ("evaluate", "dvae", "--model", tiny.dvae, "-n", "5", "--objects", "shapes")
    expected = codec.evaluate(tiny.dvae, 5, "shapes")
    found = dalle(*words).result
    assert (found["model"], found["pictures"], found["psnr"]) == (tiny.dvae, 5, pytest.approx(expected.psnr))
    shown = dalle(*words, terminal=True).out
    assert f"PSNR {expected.psnr:.2f} dB" in shown
    assert f"{expected.used:.1%} of the codes" in shown
    assert json.loads(dalle(*words, "--json", terminal=True).out) == found


def test_the_figures_of_a_clip(dalle, tiny):
    words = ("evaluate", "retrieval", "--model", tiny.clip, "-n", "20", "--among", "5", "--objects", "shapes")
    expected = retrieval.evaluate(tiny.clip, 20, "shapes", 5)
    found = dalle(*words).result
    assert (found["pictures"], found["among"]) == (20, 5)
    assert (found["caption_first"], found["picture_first"]) == (expected.caption_first, expected.picture_first)
    assert f"the right caption comes first: {expected.caption_first:.1%}" in dalle(*words, terminal=True).out


def test_the_judge_is_right_about_real_scenes_and_not_fooled_by_others(dalle):
    own, others = dalle("evaluate", "judge", "-n", "16", "--objects", "shapes", "-q").results
    assert (own["title"], others["title"]) == ("own captions", "shuffled captions")
    assert own["pictures"] == others["pictures"] == 16
    assert min(own["wholes"].values()) > 0.8
    assert sum(others["wholes"].values()) < 0.3 * sum(own["wholes"].values())


def test_captions_for_other_systems(dalle):
    results = dalle("evaluate", "captions", "-n", "10", "--objects", "shapes").results
    assert [(line["prompt"], line["category"]) for line in results] == [
        (item.caption, item.category) for item in suite.suite(SHAPES, 10)
    ]


def test_pictures_of_any_system_are_judged(dalle, tmp_path, monkeypatch):
    picture(tmp_path / "in" / "0.png", "a red circle")
    picture(tmp_path / "in" / "1.png", "a blue star left of a pink heart on a grey background")
    right = dalle("evaluate", "scenes", "in", "--objects", "shapes", "-q").result
    assert (right["title"], right["pictures"]) == ("in", 2)
    assert right["wholes"] == {"single": 1.0, "relation": 1.0}
    lines = [{"path": "in/0.png", "prompt": "a red circle"}, {"path": "in/0.png", "prompt": "a green square"}]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert dalle("evaluate", "scenes", "-", "--objects", "shapes", "-q").result["wholes"] == {"single": 0.5}


def test_a_system_is_judged_by_what_it_draws(dalle, tiny):
    words = ("evaluate", "scenes", "--recipe", tiny.recipe, "-n", "5", "--objects", "shapes", "--best-of", "1,2", "-q")
    one, two = dalle(*words).results
    assert (one["title"], two["title"]) == ("best of 1", "best of 2")
    assert one["pictures"] == two["pictures"] == 5
    assert set(one["figures"]) == set(suite.CATEGORIES)
    assert set(one["wholes"].values()) == {0.0}  # the network is untrained
    captions = {item.caption for item in suite.suite(SHAPES, 5)}
    for many in (1, 2):
        folder = f"out/scenes/best-of-{many}"
        assert len(os.listdir(folder)) == 5
        assert os.path.getsize(f"{folder}.png") > 0
        told = {dalle("inspect", f"{folder}/{name}").result["dalle"]["prompt"] for name in os.listdir(folder)}
        assert told == captions
    again = dalle(*words)
    assert (again.code, one_line(again.err)) == (73, True)
    assert dalle(*words, "--overwrite").results == [one, two]


def test_accuracy_is_printed_and_drawn_against_scale(dalle, glide):
    words = ("evaluate", "scenes", "--recipe", glide.decoder, "-n", "5", "--objects", "shapes", "-q", "--steps", "2")
    first, second, whole = dalle(*words, "--scales", "1,2.5").results
    assert (first["title"], second["title"]) == ("best of 1, scale 1", "best of 1, scale 2.5")
    assert whole["scales"] == [1, 2.5]
    for name in suite.CATEGORIES:
        assert whole["figures"][name] == [first["figures"][name], second["figures"][name]]
    assert os.path.getsize(whole["path"]) > 0
    assert len(os.listdir("out/scenes/scale-2.5/best-of-1")) == 5
    assert "accuracy against scale" in dalle(*words, "--scales", "2", "--overwrite", terminal=True).out
    (alone,) = dalle(*words, "--overwrite").results  # without a CLIP there is nothing to choose with
    assert alone["title"] == "best of 1"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("scenes", "--scales", "1,x", "--objects", "shapes"), 2, "--scales 1,x: give numbers"),
        (("dvae", "--model", "gone"), 3, "no checkpoint 'gone'"),
        (("dvae", "--model", "CLIP"), 3, "holds a 'clip', where a 'dvae' or a 'vqgan' is needed"),
        (("dvae", "--model", "DVAE", "--objects", "shape"), 2, "did you mean 'shapes'"),
        (("retrieval", "--model", "CLIP", "-n", "5"), 2, "--count 5 is less than --among 100"),
        (("scenes", "--best-of", "1,x", "--objects", "shapes"), 2, "--best-of 1,x: give numbers"),
        (("scenes", "--best-of", "0", "--objects", "shapes"), 2, "--best-of 0: give numbers"),
        (("scenes", "none", "--objects", "shapes"), 3, "no folder 'none'"),
    ],
)
def test_mistakes_get_a_line_and_their_code(dalle, tiny, words, code, said):
    known = {"CLIP": tiny.clip, "DVAE": tiny.dvae}
    ended = dalle("evaluate", *(known.get(word, word) for word in words))
    assert (ended.code, ended.out, one_line(ended.err)) == (code, "", True), ended.err
    assert said in ended.err


def test_overwriting_is_refused_before_any_model_is_loaded(dalle, tiny, tmp_path, monkeypatch):
    (tmp_path / "out" / "scenes").mkdir(parents=True)
    (tmp_path / "out" / "scenes" / "best-of-1.png").write_text("mine")

    def fail(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(checkpoint, "load", fail)
    ended = dalle("evaluate", "scenes", "--recipe", tiny.recipe, "-n", "5", "--objects", "shapes", "--best-of", "1")
    assert (ended.code, one_line(ended.err)) == (73, True)
    (tmp_path / "out" / "scenes" / "best-of-1.png").unlink()
    picture(tmp_path / "out" / "scenes" / "best-of-1" / "a.png", "a red circle")
    ended = dalle("evaluate", "scenes", "--recipe", tiny.recipe, "-n", "5", "--objects", "shapes", "--best-of", "2,1")
    assert (ended.code, one_line(ended.err)) == (73, True)
    assert "out/scenes/best-of-1 holds pictures already: give --overwrite or another --out" in ended.err
