import random

import numpy as np
import pytest
import torch

from dalle_cli.data.scenes import Scenes
from dalle_cli.data.scenes.draw import draw, place
from dalle_cli.data.scenes.glyphs import glyph_set
from dalle_cli.data.scenes.grammar import caption, parse
from dalle_cli.evaluate.unseen_scenes import batch, scenes

SHAPES = glyph_set("shapes")


def test_scenes_captions_and_pictures_belong_together():
    for number, (scene, text, picture) in enumerate(scenes(8, 32, "shapes")):
        assert text == caption(scene)
        assert parse(text, SHAPES) == scene
        assert picture.shape == (32, 32, 3)
        rng = random.Random(f"unseen/{number}")
        assert Scenes(32, "shapes").scene(rng) == scene
        assert np.array_equal(picture, draw(scene, place(scene, rng), 32, SHAPES.drawn))


def test_without_scatter_things_are_in_the_middle():
    for scene, _, picture in scenes(8, 32, "shapes", kinds={"single": 1.0}, scatter=False):
        placed = place(scene, random.Random(0), scatter=False)
        assert (placed[0].x, placed[0].y) == (0.5, 0.5)
        assert np.array_equal(picture, draw(scene, placed, 32, SHAPES.drawn))


def test_they_are_the_same_each_time_and_more_of_them_begin_alike():
    short, long = list(scenes(5, 16, "shapes")), list(scenes(9, 16, "shapes"))
    assert [text for _, text, _ in long[:5]] == [text for _, text, _ in short]
    assert all(np.array_equal(one[2], other[2]) for one, other in zip(short, long))
    assert len({text for _, text, _ in long}) > 5


@pytest.mark.parametrize("distinct", [False, True])
def test_captions_are_distinct_when_they_are_to_be(distinct):
    texts = [text for _, text, _ in scenes(600, 8, "shapes", distinct)]
    assert len(texts) == 600
    assert (len(set(texts)) == 600) == distinct


def test_pictures_become_a_batch_in_the_networks_range():
    pictures = [picture for _, _, picture in scenes(3, 16, "shapes")]
    tensor = batch(pictures)
    assert (tensor.shape, tensor.dtype) == ((3, 3, 16, 16), torch.float32)
    assert tensor.is_contiguous()
    assert torch.equal(((tensor + 1) * 127.5).round().byte().permute(0, 2, 3, 1), torch.from_numpy(np.stack(pictures)))


def test_kinds_of_scenes_can_be_chosen():
    found = {scene.kind for scene, _, _ in scenes(40, 8, "shapes", kinds={"single": 1.0, "count": 1.0})}
    assert found == {"single", "count"}
