import random
from dataclasses import replace

import numpy as np
import pytest

from dalle_cli.data.scenes.draw import draw, place
from dalle_cli.data.scenes.glyphs import BACKGROUNDS, TINTS, glyph_set
from dalle_cli.data.scenes.grammar import held_out, parse
from dalle_cli.evaluate import latents as module
from dalle_cli.evaluate.checker import Claim, Verdict
from dalle_cli.evaluate.latents import Outcome, both, edits, outcome, returned, shown, turned
from tests.evaluate.conftest import made

SHAPES = glyph_set("shapes")


def picture(scene):
    return draw(scene, place(scene, random.Random(0)), 64, True)


def verdict(*true):
    return Verdict(tuple(Claim("object", "star", one) for one in true))


def test_pictures_that_come_back():
    found = returned([24.0, 26.0, 100.0, 25.0])
    assert found.psnr.value == pytest.approx(43.75)
    assert (found.near.true, found.near.count) == (2, 4)
    assert found.plain["near"] == 0.5
    assert "over 25 dB:  50.0%" in str(found)
    assert returned([30.0]).plain["psnr_interval"] is None


def test_objects_in_pictures_and_at_both_ends_of_ways():
    found = [verdict(True), verdict(True, True), verdict(True, False), verdict(True)]
    assert (shown(found).true, shown(found).count) == (3, 4)
    assert (both(found).true, both(found).count) == (1, 3)


def test_edits_change_one_attribute_to_what_training_may_show():
    found = list(edits(12, 32, SHAPES))
    assert [one.part for one in found] == ["colour", "background"] * 6
    for one in found:
        assert tuple(parse(text, SHAPES) for text in one.captions) == (one.before, one.after)
        (thing,), (new,) = one.before.things, one.after.things
        assert not held_out(one.before)
        assert not held_out(one.after)
        if one.part == "colour":
            assert new == replace(thing, colour=new.colour)
            assert new.colour != thing.colour
            assert new.colour in TINTS
            assert (one.before.background, one.after.background) == (None, None)
        else:
            assert new == thing
            assert one.before.background != one.after.background
            assert {one.before.background, one.after.background} <= set(BACKGROUNDS)
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(found, edits(12, 32, SHAPES)))


def test_where_all_is_held_out_nothing_is_to_edit(monkeypatch):
    monkeypatch.setattr(module, "held_out", lambda scene: True)
    with pytest.raises(ValueError, match="'shapes' has no scenes to edit"):
        list(edits(1, 8, SHAPES))


def test_an_edit_counts_when_it_turns_and_keeps():
    judge, found = made("shapes"), list(edits(10, 64, SHAPES))
    done = [outcome(judge, one, picture(one.after)) for one in found]
    assert sum(one.turned and one.kept for one in done) >= 9
    nothing = [outcome(judge, one, one.picture) for one in found]
    assert not any(one.turned for one in nothing)
    assert sum(one.kept for one in nothing) >= 9
    other = next(name for name in SHAPES.names if name not in ("circle", found[1].after.things[0].glyph))
    lost = replace(found[1].after, things=(replace(found[1].after.things[0], glyph=other),))
    result = outcome(judge, found[1], picture(lost))
    assert (result.part, result.turned, result.kept) == ("background", True, False)


def test_shares_of_edits():
    rows = [Outcome("colour", True, True), Outcome("colour", True, False), Outcome("background", False, True)]
    assert {name: (one.true, one.count) for name, one in turned(rows).items()} == {
        "edited": (1, 3), "turned": (2, 3), "kept": (2, 3), "colour": (1, 2), "background": (0, 1),
    }  # fmt: skip
