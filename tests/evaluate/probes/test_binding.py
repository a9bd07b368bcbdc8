import os
import random
from dataclasses import replace

import pytest
from PIL import Image

from dalle_cli.data.scenes.grammar import Scene, SceneObject, held_out
from dalle_cli.data.scenes.objects import load_object_set
from dalle_cli.data.scenes.render import place
from dalle_cli.data.scenes.render import render as render_scene
from dalle_cli.evaluate.checker import SceneChecker
from dalle_cli.evaluate.probes import binding


def render(scene):
    return render_scene(scene, place(scene, random.Random(0)), 64, True)


def test_scenes_have_two_objects_in_two_colors():
    scenes = binding.two_colors(load_object_set("shapes"), 40)
    assert len(set(scenes)) == 40
    assert scenes[:10] == binding.two_colors(load_object_set("shapes"), 10)
    assert scenes != binding.two_colors(load_object_set("shapes"), 40, seed=1)
    for scene in scenes:
        one, other = scene.objects
        assert one.name != other.name
        assert None not in (one.color, other.color)
        assert one.color != other.color
        assert not held_out(scene)
    with pytest.raises(ValueError, match="lower --num-captions"):
        binding.two_colors(replace(load_object_set("shapes"), names=("circle", "square")), 200)


def test_outcomes_are_checked_and_counted():
    checker = SceneChecker(load_object_set("shapes"))
    scene = Scene((SceneObject("circle", "red"), SceneObject("square", "blue")))
    other = Scene((SceneObject("circle", "green"), SceneObject("square", "yellow")))
    single = Scene((SceneObject("circle", "red"),))
    assert binding.swapped(scene) == Scene((SceneObject("circle", "blue"), SceneObject("square", "red")))
    shown = (scene, binding.swapped(scene), other, single)
    outcomes = [binding.check_binding(checker, scene, render(one)) for one in shown]
    assert [binding.describe(one) for one in outcomes] == ["bound", "swapped", "objects", "not both objects"]
    figures = binding.summarize(outcomes)
    assert {key: (one.successes, one.trials) for key, one in figures.items()} == {
        "bound": (1, 4), "swapped": (1, 4), "objects": (3, 4),
    }  # fmt: skip
    head, row = binding.Binding({"unclip": figures}, []).table()
    assert head.split() == ["system", "bound", "swapped", "objects"]
    assert row.split()[:2] == ["unclip", "25.0%"]


@pytest.mark.slow
def test_two_systems_are_compared(probe, unclip, glide):
    words = ("binding", "--recipe", unclip.recipe, "--baseline", glide.decoder, "--num-captions", 2)
    lines = probe(*words, "--sheet", "s.png").results
    assert [one["recipe"] for one in lines] == ["unclip", "decoder"]
    for one in lines:
        assert one["num_images"] == 2
        for name in ("bound", "swapped", "objects"):
            low, high = one[f"{name}_interval"]
            assert 0 <= low <= one[name] <= high <= 1
    assert Image.open("s.png").size[0] == 2 * 136 + 8
    table = probe(*words, "--out", "b", terminal=True).out.splitlines()
    assert [line.split()[0] for line in table] == ["system", "unclip", "decoder"]
    assert probe(*words, "--dry-run", "--out", "c").out == ""
    assert not os.path.exists("c")
