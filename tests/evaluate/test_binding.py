import random
from dataclasses import replace

import pytest

from dalle_cli import images
from dalle_cli.data.scenes.draw import draw, place
from dalle_cli.data.scenes.glyphs import glyph_set
from dalle_cli.data.scenes.grammar import Scene, Thing, held_out
from dalle_cli.evaluate import binding
from dalle_cli.evaluate.checker import Judge


def drawn(scene, path):
    images.save_png(images.Image.fromarray(draw(scene, place(scene, random.Random(0)), 64, True)), path)
    return str(path)


def test_scenes_have_two_things_in_two_colours_that_training_shows():
    found = binding.scenes(glyph_set("shapes"), 40)
    assert len(set(found)) == 40
    assert found[:10] == binding.scenes(glyph_set("shapes"), 10)
    assert found != binding.scenes(glyph_set("shapes"), 40, seed=1)
    for scene in found:
        one, other = scene.things
        assert one.glyph != other.glyph
        assert None not in (one.colour, other.colour)
        assert one.colour != other.colour
        assert not held_out(scene)
    with pytest.raises(ValueError, match="lower the count"):
        binding.scenes(replace(glyph_set("shapes"), names=("circle", "square")), 200)


def test_outcomes(tmp_path):
    scene = Scene((Thing("circle", "red"), Thing("square", "blue")))
    other = Scene((Thing("circle", "green"), Thing("square", "yellow")))
    alone = Scene((Thing("circle", "red"),))
    assert binding.exchanged(scene) == Scene((Thing("circle", "blue"), Thing("square", "red")))
    shown = (scene, binding.exchanged(scene), other, alone)
    paths = [drawn(one, tmp_path / f"{i}.png") for i, one in enumerate(shown)]
    counted = []
    ((*found,),) = binding.outcomes(Judge(glyph_set("shapes")), [scene], [paths], lambda: counted.append(1))
    assert counted == [1]
    assert [binding.name(one) for one in found] == ["bound", "exchanged", "objects", "not both objects"]
    shares = binding.shares(found)
    assert {key: (share.true, share.count) for key, share in shares.items()} == {
        "bound": (1, 4), "exchanged": (1, 4), "objects": (3, 4),
    }  # fmt: skip
    head, row = binding.table({"unclip": shares})
    assert head.split() == ["system", "bound", "exchanged", "objects"]
    assert row.split()[:2] == ["unclip", "25.0%"]
