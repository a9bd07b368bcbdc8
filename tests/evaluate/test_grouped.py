import random

import pytest
from PIL import Image

from dalle_cli import images
from dalle_cli.data.scenes.draw import draw, place
from dalle_cli.data.scenes.glyphs import glyph_set
from dalle_cli.data.scenes.grammar import parse
from dalle_cli.evaluate import grouped

SHAPES = glyph_set("shapes")


@pytest.fixture
def results(tmp_path):
    """Red circles, asked for in two ways, as one was asked and as none was; one outside the grammar."""
    scene = parse("a red circle", SHAPES)
    images.save_png(Image.fromarray(draw(scene, place(scene, random.Random(0)), 64, True)), tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    return [
        {"drive": "prior", "prompt": "a red circle", "path": path, "score": 0.5},
        {"drive": "prior", "prompt": "a red circle", "path": path, "score": 0.7},
        {"drive": "caption", "prompt": "a blue star", "path": path, "score": 0.1},
        {"drive": "caption", "prompt": "a red circle", "error": "was not drawn"},
        {"drive": "text", "prompt": "love", "path": path},
        {"error": "a line that could not be read"},
    ]


def test_groups_are_judged_by_their_captions(results):
    found = grouped.by_kind(results, "drive", SHAPES)
    assert {name: (one.asked.true, one.asked.count) for name, one in found.items()} == {
        "prior": (2, 2), "caption": (0, 1), "text": (0, 0),
    }  # fmt: skip
    plain = found["prior"].plain
    assert (plain["judged"], plain["asked"], plain["score"]) == (2, 1.0, pytest.approx(0.6))
    assert plain["interval"][0] < 1 == plain["interval"][1]
    assert found["text"].plain == {"judged": 0}
    lines = grouped.table("drive", found)
    assert lines[1].split()[:3] == ["prior", "2", "100.0%"]
    assert "outside the grammar" in lines[3]


def test_a_picture_that_is_none_is_named(tmp_path):
    (tmp_path / "x.png").write_text("x")
    with pytest.raises(images.BadImage, match=r"x\.png: not an image"):
        grouped.opened(str(tmp_path / "x.png"))
    Image.new("RGB", (30, 20)).save(tmp_path / "wide.png")
    assert grouped.opened(str(tmp_path / "wide.png")).size == (20, 20)
