from collections import Counter

import numpy as np
import pytest

from dalle_cli.data.scenes import Scenes
from dalle_cli.data.scenes.grammar import held_out, parse


def test_samples_are_pictures_with_captions_in_the_grammar():
    source = Scenes(48, "shapes", samples=30)
    assert source.blocks == [30]
    for i in range(30):
        sample = source.read(0, i)
        assert sample["image"].shape == (48, 48, 3)
        assert sample["image"].dtype == np.uint8
        assert parse(sample["text"], source.object_set) is not None
        assert sample["key"] == f"scene-{i:09d}"


def test_a_sample_is_a_function_of_seed_and_index():
    first, again, other = (Scenes(32, "shapes", seed=seed) for seed in (3, 3, 4))
    assert first.read(0, 7)["text"] == again.read(0, 7)["text"]
    assert np.array_equal(first.read(0, 7)["image"], again.read(0, 7)["image"])
    assert [first.read(0, i)["text"] for i in range(8)] != [other.read(0, i)["text"] for i in range(8)]


def test_training_and_evaluation_share_no_combination():
    for held in (False, True):
        source = Scenes(32, "shapes", held_out=held)
        scenes = [parse(source.read(0, i)["text"], source.object_set) for i in range(60)]
        assert all(scene is not None and held_out(scene) is held for scene in scenes)


def test_kinds_are_drawn_by_their_weights():
    source = Scenes(32, "shapes", scene_weights={"single": 3.0, "pair": 1.0}, background_prob=0.0)
    scenes = [parse(source.read(0, i)["text"], source.object_set) for i in range(300)]
    kinds = Counter(scene.kind for scene in scenes if scene)
    assert set(kinds) == {"single", "pair"}
    assert 2 < kinds["single"] / kinds["pair"] < 6  # more pairs than singles hold something held out
    assert all(scene.background is None for scene in scenes if scene)


def test_one_wording_or_several():
    plain, varied = (Scenes(32, "shapes", caption_variants=wording) for wording in (False, True))
    assert all(plain.read(0, i)["text"].startswith(("a ", "an ", "two ", "three ")) for i in range(80))
    texts = [varied.read(0, i)["text"] for i in range(80)]
    assert any(text.startswith("a picture of ") for text in texts)
    assert any(not text.startswith(("a ", "an ", "two ", "three ")) for text in texts)


def test_relations_are_drawn_by_their_weights():
    source = Scenes(
        32,
        "shapes",
        scene_weights={"relation": 1.0},
        relation_weights={"above": 3.0, "left of": 1.0},
        background_prob=0.0,
    )
    scenes = [parse(source.read(0, i, with_image=False)["text"], source.object_set) for i in range(200)]
    relations = Counter(scene.relation for scene in scenes if scene)
    assert set(relations) == {"above", "left of"}
    assert 2 < relations["above"] / relations["left of"] < 5
    with pytest.raises(ValueError, match=r"data\.relation_weights takes weights of left of, .*got beside"):
        Scenes(32, "shapes", relation_weights={"beside": 1.0})


@pytest.mark.parametrize(("kinds", "named"), [({"singel": 1.0}, "got singel"), ({"single": 0.0}, "got none")])
def test_weights_that_mean_nothing_are_refused(kinds, named):
    with pytest.raises(ValueError, match=f"data.scene_weights takes weights of single, .*{named}"):
        Scenes(32, "shapes", scene_weights=kinds)


def test_a_split_without_scenes_is_an_error_and_not_a_hang():
    source = Scenes(32, "shapes", scene_weights={"sign": 1.0}, background_prob=0.0, held_out=True)
    with pytest.raises(
        ValueError, match=r"data\.held_out=true leaves no scenes: give data\.scene_weights others than sign"
    ):
        source.read(0, 0)
