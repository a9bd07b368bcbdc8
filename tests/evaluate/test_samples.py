import random

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli.data.scenes import Scenes
from dalle_cli.data.scenes.grammar import caption, parse
from dalle_cli.data.scenes.objects import load_object_set
from dalle_cli.data.scenes.render import place, render
from dalle_cli.evaluate.samples import batch, from_data, load, second_images, unseen

SHAPES = load_object_set("shapes")


def test_scene_caption_and_image_belong_together():
    for number, sample in enumerate(unseen(8, 32, "shapes")):
        scene = sample.scene
        assert sample.caption == caption(scene)
        assert parse(sample.caption, SHAPES) == scene
        assert sample.image.shape == (32, 32, 3)
        rng = random.Random(f"unseen/{number}")
        assert Scenes(32, "shapes").scene(rng) == scene
        assert np.array_equal(sample.image, render(scene, place(scene, rng), 32, SHAPES.drawn))


def test_fixed_positions_are_centered():
    for sample in unseen(8, 32, "shapes", scene_weights={"single": 1.0}, random_positions=False):
        placed = place(sample.scene, random.Random(0), random_positions=False)
        assert (placed[0].x, placed[0].y) == (0.5, 0.5)
        assert np.array_equal(sample.image, render(sample.scene, placed, 32, SHAPES.drawn))


def test_shorter_set_is_a_prefix_of_a_longer_one():
    short, long = list(unseen(5, 16, "shapes")), list(unseen(9, 16, "shapes"))
    assert [one.caption for one in long[:5]] == [one.caption for one in short]
    assert all(np.array_equal(one.image, other.image) for one, other in zip(short, long))
    assert len({one.caption for one in long}) > 5


@pytest.mark.parametrize("distinct", [False, True])
def test_captions_are_distinct_on_request(distinct):
    texts = [sample.caption for sample in unseen(600, 8, "shapes", distinct)]
    assert len(texts) == 600
    assert (len(set(texts)) == 600) == distinct


def test_batch_is_in_the_range_of_networks():
    images = [sample.image for sample in unseen(3, 16, "shapes")]
    tensor = batch(images)
    assert (tensor.shape, tensor.dtype) == ((3, 3, 16, 16), torch.float32)
    assert tensor.is_contiguous()
    assert torch.equal(((tensor + 1) * 127.5).round().byte().permute(0, 2, 3, 1), torch.from_numpy(np.stack(images)))


def test_scene_weights_are_respected():
    kinds = {sample.scene.kind for sample in unseen(40, 8, "shapes", scene_weights={"single": 1.0, "count": 1.0})}
    assert kinds == {"single", "count"}


def test_second_images_show_the_same_scenes_elsewhere():
    scenes = list(unseen(6, 32, "shapes"))
    second = list(second_images([sample.scene for sample in scenes], 32, "shapes"))
    assert len(second) == 6
    assert sum(not np.array_equal(sample.image, image) for sample, image in zip(scenes, second)) >= 4


def test_own_data_is_cropped_and_keeps_captions(tmp_path):
    for number, color in enumerate(("red", "blue", "lime")):
        Image.new("RGB", (40, 20), color).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(color)
    data = {"type": "folder", "path": str(tmp_path), "num_workers": 0}
    by_caption = {sample.caption: sample.image for sample in from_data(data, 10, 8)}
    assert sorted(by_caption) == ["blue", "lime", "red"]
    assert (by_caption["lime"] == (0, 255, 0)).all()
    assert by_caption["red"].shape == (8, 8, 3)
    assert len(from_data(data, 2, 8)) == 2
    assert len(load(2, 8, "shapes", data)) == len(load(2, 8, "shapes")) == 2
