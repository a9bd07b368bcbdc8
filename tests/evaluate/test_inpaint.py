from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dalle_cli.data.scenes.draw import Placed, draw
from dalle_cli.data.scenes.glyphs import glyph_set
from dalle_cli.data.scenes.grammar import Thing, held_out, parse
from dalle_cli.evaluate.inpaint import Outcome, around, holes, outcome, shares
from tests.evaluate.conftest import made

SHAPES = glyph_set("shapes")


@pytest.fixture(scope="module")
def found():
    return list(holes(8, 64, "shapes"))


def filled(hole, thing=None, moved=0):
    """The picture with a thing drawn into the middle of its hole; moved: pixels to the side."""
    left, top, width, height = hole.box
    side = 24
    size, x, y = side / 64, (left + width / 2 + moved) / 64, (top + height / 2) / 64
    scene = replace(hole.scene, things=(thing or hole.thing,), relation=None)
    canvas = draw(scene, [Placed(thing or hole.thing, x, y, size)], 64, True)
    out = hole.picture.copy()
    inside = np.s_[top : top + height, left : left + width] if not moved else np.s_[:, :]
    out[inside] = canvas[inside]
    return Image.fromarray(out)


def test_holes_of_a_decoder_that_knows_few_places_are_there(found):
    few = list(holes(24, 64, "shapes", scatter=False))
    assert len({hole.box for hole in few}) <= 4 < len({hole.box for hole in found})  # left, right, above, below


def test_a_hole_covers_one_of_two_things_and_not_the_other(found):
    assert [hole.box for hole in found] == [hole.box for hole in holes(8, 64, "shapes")]
    for hole in found:
        assert parse(hole.caption, SHAPES) == hole.scene
        assert hole.thing in hole.scene.things
        assert not held_out(hole.scene)
        left, top, width, height = hole.box
        assert min(left, top) >= 0
        assert max(left + width, top + height) <= 64
        ground = hole.picture[0, 0] if (hole.picture[0] == hole.picture[0, 0]).all() else None
        if ground is not None:  # what is left of the picture still holds the other thing, as large as it was
            rest = hole.picture.copy()
            rest[top : top + height, left : left + width] = ground
            assert (rest != ground).any()
            assert (hole.picture != ground).any(axis=2).sum() > (rest != ground).any(axis=2).sum()


def test_boxes_stop_at_the_middle_and_at_the_border():
    pair = [Placed(Thing("star"), 0.3125, 0.5, 0.375), Placed(Thing("ring"), 0.8125, 0.5, 0.375)]
    assert around(pair, 0, 64) == (4, 16, 28, 32)
    assert around(pair, 1, 64) == (36, 16, 28, 32)
    assert around([replace(one, x=one.y, y=one.x) for one in pair], 1, 64) == (16, 36, 32, 28)


def test_what_is_asked_counts_where_it_is_asked(found):
    judge = made("shapes")
    good = [outcome(judge, hole, filled(hole)) for hole in found]
    assert sum(one.inside for one in good) >= 7
    assert sum(one.asked for one in good) >= 7
    assert all(one.untouched for one in good)
    for hole in found:  # as it was, it shows another thing there
        assert outcome(judge, hole, Image.fromarray(hole.picture)) == Outcome(False, False, True)
    other = [replace(hole.thing, colour="brown" if hole.thing.colour != "brown" else "pink") for hole in found]
    tinted = [outcome(judge, hole, filled(hole, thing)) for hole, thing in zip(found, other)]
    assert sum(one.inside for one in tinted) >= 7
    assert not any(one.asked for one in tinted)


def test_an_object_elsewhere_is_not_in_the_hole(found):
    hole = next(hole for hole in found if hole.box[0] < 16 and hole.box[2] < 40)
    there = filled(hole, moved=32)  # a whole picture of the thing on the other side
    result = outcome(made("shapes"), hole, there)
    assert (result.inside, result.untouched) == (False, False)


def test_one_changed_pixel_outside_is_seen(found):
    pixels = np.asarray(filled(found[0])).copy()
    left, top, width, _ = found[0].box
    y, x = top, left - 1 if left else left + width
    pixels[y, x, 1] ^= 1
    assert not outcome(made("shapes"), found[0], Image.fromarray(pixels)).untouched
    with pytest.raises(ValueError, match="where the one to fill"):
        outcome(made("shapes"), found[0], Image.new("RGB", (32, 32)))


def test_shares():
    rows = [Outcome(True, True, True), Outcome(True, False, True), Outcome(False, False, False)]
    assert {name: (one.true, one.count) for name, one in shares(rows).items()} == {
        "inside": (2, 3), "asked": (1, 3), "untouched": (2, 3),
    }  # fmt: skip
