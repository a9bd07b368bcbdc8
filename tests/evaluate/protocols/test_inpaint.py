from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle_cli.data.scenes.grammar import SceneObject, held_out, parse
from dalle_cli.data.scenes.objects import load_object_set
from dalle_cli.data.scenes.render import PlacedObject, render
from dalle_cli.evaluate.protocols import inpaint as module
from dalle_cli.evaluate.protocols.inpaint import Outcome, box_around, check_inpainting, masked_scenes, summarize
from dalle_cli.generate.inpaint_crop import InpaintCrop
from tests.cli.conftest import one_line
from tests.evaluate.conftest import checker_of

SHAPES = load_object_set("shapes")
OBJECTS = ("--objects", "shapes", "-q")


@pytest.fixture(scope="module")
def scenes():
    return list(masked_scenes(8, 64, "shapes"))


def inpainted(masked, obj=None, moved=0):
    """The image with an object in the middle of its mask; moved: pixels to the side."""
    left, top, width, height = masked.box
    side = 24
    size, x, y = side / 64, (left + width / 2 + moved) / 64, (top + height / 2) / 64
    scene = replace(masked.scene, objects=(obj or masked.obj,), relation=None)
    canvas = render(scene, [PlacedObject(obj or masked.obj, x, y, size)], 64, True)
    out = masked.image.copy()
    inside = np.s_[top : top + height, left : left + width] if not moved else np.s_[:, :]
    out[inside] = canvas[inside]
    return Image.fromarray(out)


def test_fixed_positions_give_few_boxes(scenes):
    few = list(masked_scenes(24, 64, "shapes", random_positions=False))
    assert (
        len({masked.box for masked in few}) <= 4 < len({masked.box for masked in scenes})
    )  # left, right, above, below


def test_mask_covers_one_of_two_objects(scenes):
    assert [masked.box for masked in scenes] == [masked.box for masked in masked_scenes(8, 64, "shapes")]
    for masked in scenes:
        assert parse(masked.caption, SHAPES) == masked.scene
        assert masked.obj in masked.scene.objects
        assert not held_out(masked.scene)
        left, top, width, height = masked.box
        assert min(left, top) >= 0
        assert max(left + width, top + height) <= 64
        background = masked.image[0, 0] if (masked.image[0] == masked.image[0, 0]).all() else None
        if background is not None:  # the rest of the image still shows the other object
            rest = masked.image.copy()
            rest[top : top + height, left : left + width] = background
            assert (rest != background).any()
            assert (masked.image != background).any(axis=2).sum() > (rest != background).any(axis=2).sum()


def test_boxes_stop_at_the_middle_and_at_the_border():
    pair = [
        PlacedObject(SceneObject("star"), 0.3125, 0.5, 0.375),
        PlacedObject(SceneObject("ring"), 0.8125, 0.5, 0.375),
    ]
    assert box_around(pair, 0, 64) == (4, 16, 28, 32)
    assert box_around(pair, 1, 64) == (36, 16, 28, 32)
    assert box_around([replace(one, x=one.y, y=one.x) for one in pair], 1, 64) == (16, 36, 32, 28)


def test_new_object_counts_with_and_without_its_color(scenes):
    checker = checker_of("shapes")
    good = [check_inpainting(checker, masked, inpainted(masked)) for masked in scenes]
    assert sum(one.object_in_mask for one in good) >= 7
    assert sum(one.color_correct for one in good) >= 7
    assert all(one.outside_unchanged for one in good)
    for masked in scenes:  # the input shows another object there
        assert check_inpainting(checker, masked, Image.fromarray(masked.image)) == Outcome(False, False, True)
    other = [replace(masked.obj, color="brown" if masked.obj.color != "brown" else "pink") for masked in scenes]
    recolored = [check_inpainting(checker, masked, inpainted(masked, obj)) for masked, obj in zip(scenes, other)]
    assert sum(one.object_in_mask for one in recolored) >= 7
    assert not any(one.color_correct for one in recolored)


def test_object_outside_the_mask_does_not_count(scenes):
    masked = next(masked for masked in scenes if masked.box[0] < 16 and masked.box[2] < 40)
    elsewhere = inpainted(masked, moved=32)  # a whole image of the object on the other side
    result = check_inpainting(checker_of("shapes"), masked, elsewhere)
    assert (result.object_in_mask, result.outside_unchanged) == (False, False)


def test_one_changed_pixel_outside_is_detected(scenes):
    pixels = np.asarray(inpainted(scenes[0])).copy()
    left, top, width, _ = scenes[0].box
    y, x = top, left - 1 if left else left + width
    pixels[y, x, 1] ^= 1
    assert not check_inpainting(checker_of("shapes"), scenes[0], Image.fromarray(pixels)).outside_unchanged
    with pytest.raises(ValueError, match="where the input has"):
        check_inpainting(checker_of("shapes"), scenes[0], Image.new("RGB", (32, 32)))


def test_outcomes_are_counted():
    rows = [Outcome(True, True, True), Outcome(True, False, True), Outcome(False, False, False)]
    assert [(one.successes, one.trials) for one in summarize(rows)] == [(2, 3), (1, 3), (2, 3)]


@pytest.fixture
def inpaint(dalle, glide):
    def run(*words, **how):
        recipe = ("--recipe", glide.inpaint)
        return dalle("evaluate", "inpaint", *recipe, "-n", 3, "--steps", 2, *OBJECTS, *words, **how)

    return run


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def test_command_checks_inpainted_scenes(inpaint):
    line = inpaint("--sheet", "s.png").result
    assert (line["object_in_mask"], line["outside_unchanged"]) == (0, 1)
    assert line["object_in_mask_interval"][1] < 0.6
    inputs, outputs = (sorted(Path("out/inpaint", name).iterdir()) for name in ("inputs", "generated"))
    assert len(inputs) == 3
    for masked, before, after in zip(masked_scenes(3, 8, "shapes"), inputs, outputs):
        assert np.array_equal(pixels(before), masked.image)
        assert not np.array_equal(pixels(after), masked.image)
    assert Image.open("s.png").size[0] > 3 * 8
    again = inpaint()
    assert (again.code, one_line(again.err)) == (73, True)
    assert inpaint("--skip-existing").result == line
    assert "bit-identical: 3 of 3" in inpaint("--overwrite", terminal=True).out
    assert inpaint("--dry-run", "--out", "b").out == ""
    assert not Path("b").exists()


def test_decoder_is_evaluated_on_positions_of_its_training(inpaint, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "masked_scenes", lambda *given: calls.append(given) or masked_scenes(*given))
    monkeypatch.setattr(module, "trained_positions", lambda name: False)
    inpaint()
    assert calls == [(3, 8, "shapes", False)]


def test_changes_outside_the_mask_are_counted(inpaint, monkeypatch):
    monkeypatch.setattr(InpaintCrop, "paste", lambda crop, generated: Image.fromarray(255 - np.asarray(crop.image)))
    assert inpaint().result["outside_unchanged"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--recipe", "dalle1"), "inpainting needs diffusion"), (("--objects", "shape"), "did you mean 'shapes'")],
)
def test_usage_errors_are_one_line(dalle, glide, words, message):
    ended = dalle("evaluate", "inpaint", "--recipe", glide.inpaint, *words, "-n", 2, "-q")
    assert (ended.code, ended.out, one_line(ended.err)) == (2, "", True), ended.err
    assert message in ended.err
