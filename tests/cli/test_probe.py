import json

import pytest
from PIL import Image

from tests.cli.conftest import one_line
from tests.fixtures.miniatures import noise

SHAPES = ("--objects", "shapes")


@pytest.fixture
def probe(dalle, unclip, tmp_path):
    noise(1, 24, 16).save(tmp_path / "dog.png")

    def run(*words, code=0, **how):
        ended = dalle("probe", *words, "--recipe", unclip.recipe, "--steps", 2, "-q", **how)
        assert ended.code == code, ended.err
        return ended

    return run


@pytest.mark.slow
def test_pca(probe, tmp_path):
    found = probe("pca", "dog.png", "--components", "1,3", "--scenes", 30, *SHAPES, "--sheet", "s.png").results
    assert [one["components"] for one in found] == [1, 3, 8]
    (tmp_path / "many").mkdir()
    for number in range(3):
        noise(number, 20, 12).save(tmp_path / "many" / f"{number}.png")
    other = probe("pca", "dog.png", "--components", "1,3", "--basis", "many", "--out", "b").results
    assert other[0]["variance"] != found[0]["variance"]
    assert other[1]["variance"] == 1  # three pictures have two components
    assert Image.open("s.png")


def test_typographic(probe):
    found = probe("typographic", "dog.png", "star", "-n", 1, *SHAPES).results
    assert [one["stage"] for one in found] == ["before", "after", "variation"]
    assert all(one["label"].startswith("a") for one in found)
    own = probe("typographic", "dog.png", "iPod", "-n", 0, "--label", "an apple", "--out", "b").results
    assert {one["label"] for one in own} <= {"an apple", "an iPod"}
    assert own[0]["object"] + own[0]["word"] == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_prior(probe):
    found = probe("prior", "a red circle", *SHAPES).results
    assert [one.get("drive") for one in found] == ["caption", "text embedding", "prior"] * 2
    assert [one["judged"] for one in found[3:]] == [1, 1, 1]
    assert all(0 <= one["interval"][0] <= one["asked"] <= one["interval"][1] <= 1 for one in found[3:])
    suite = probe("prior", "--captions", 5, *SHAPES, "--out", "b", terminal=True)
    table = suite.out.split("\n\n")[-1].splitlines()
    assert [line.split()[0] for line in table] == ["drive", "caption", "text", "prior"]


@pytest.mark.slow
def test_binding(probe, glide):
    words = ("binding", "--against", glide.decoder, "--captions", 2, *SHAPES)
    found = probe(*words, "--sheet", "s.png").results
    assert [one["recipe"] for one in found] == ["unclip", "decoder"]
    for one in found:
        assert one["pictures"] == 2
        for name in ("bound", "exchanged", "objects"):
            low, high = one[f"{name}_interval"]
            assert 0 <= low <= one[name] <= high <= 1
    assert Image.open("s.png").size[0] == 2 * 100 + 4
    table = probe(*words, "--out", "b", terminal=True).out.splitlines()
    assert [line.split()[0] for line in table] == ["system", "unclip", "decoder"]
    assert probe(*words, "--dry-run", "--out", "c").out == ""


@pytest.mark.slow
def test_diversity(probe, glide, tiny):
    words = ("diversity", "--against", glide.decoder, "--captions", 5, "-n", 2, "--scales", "1,2", "--clip", tiny.clip)
    found = probe(*words, *SHAPES, "--sheet", "s.png").results
    assert [(one["recipe"], one["scale"], one["pictures"]) for one in found] == [
        (name, scale, 10) for name in ("unclip", "decoder") for scale in (1.0, 2.0)
    ]
    assert all(one["diversity_interval"][0] < one["diversity"] < one["diversity_interval"][1] for one in found)
    assert Image.open("s.png").size == (640, 400)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("pca", "none.png", *SHAPES), 3, "no file 'none.png'"),
        (("pca", "dog.png", "--components", "0", *SHAPES), 2, "numbers from 1"),
        (("pca", "dog.png", "--basis", "."), 3, "components of 1 picture: give at least two"),
        (("typographic", "dog.png", " ", *SHAPES), 2, "nothing of it can be seen"),
        (("typographic", "dog.png", "x" * 50, *SHAPES), 2, "50 letters"),
        (("binding", "--against", "none"), 2, "none"),
        (("diversity", "-n", "1", *SHAPES), 2, "-n 1"),
        (("diversity", "--clip", "none", *SHAPES), 3, "none"),
        (("binding", "--against", "glide-tiny", *SHAPES), 3, "no checkpoint 'checkpoints/decoder-glide"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(probe, words, code, said):
    ended = probe(*words, code=code)
    assert one_line(ended.err)
    assert said in ended.err


@pytest.mark.parametrize("words", [("pca", "dog.png"), ("prior", "a red circle"), ("typographic", "dog.png", "x")])
def test_without_the_trained_weights_the_line_names_them(probe, dalle, words):
    ended = dalle("probe", *words, "--recipe", "unclip-tiny", *SHAPES)
    assert (ended.code, one_line(ended.err)) == (3, True)
    assert "no checkpoint 'checkpoints/" in ended.err


def test_json_is_json(probe):
    assert json.loads(probe("typographic", "dog.png", "star", "-n", 0, *SHAPES).out.splitlines()[0])["stage"]
