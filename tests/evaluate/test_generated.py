import random

import pytest
from PIL import Image

from dalle_cli import images
from dalle_cli.data.scenes.grammar import parse
from dalle_cli.data.scenes.objects import load_object_set
from dalle_cli.data.scenes.render import place, render
from dalle_cli.evaluate import generated
from dalle_cli.exits import DONE, PARTIAL, Failure
from dalle_cli.generate.inpaint import InpaintOptions
from dalle_cli.generate.outputs import Collected

SHAPES = load_object_set("shapes")


@pytest.fixture
def results(tmp_path):
    """Red circles with prompts that are correct, incorrect, and outside the grammar."""
    scene = parse("a red circle", SHAPES)
    images.save_png(Image.fromarray(render(scene, place(scene, random.Random(0)), 64, True)), tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    return [
        {"conditioning": "prior", "prompt": "a red circle", "path": path, "score": 0.5},
        {"conditioning": "prior", "prompt": "a red circle", "path": path, "score": 0.7},
        {"conditioning": "caption", "prompt": "a blue star", "path": path, "score": 0.1},
        {"conditioning": "caption", "prompt": "a red circle", "error": "failed"},
        {"conditioning": "text", "prompt": "love", "path": path},
        {"error": "an unreadable line"},
    ]


def test_groups_are_checked_by_their_prompts(results):
    groups = generated.group_figures(results, "conditioning", SHAPES)
    assert {name: (one.accuracy.successes, one.accuracy.trials) for name, one in groups.items()} == {
        "prior": (2, 2), "caption": (0, 1), "text": (0, 0),
    }  # fmt: skip
    line = groups["prior"].to_json()
    assert (line["num_checked"], line["accuracy"], line["score"]) == (2, 1.0, pytest.approx(0.6))
    assert line["accuracy_interval"][0] < 1 == line["accuracy_interval"][1]
    assert groups["text"].to_json() == {"num_checked": 0}
    lines = generated.table("conditioning", groups)
    assert lines[1].split()[:3] == ["prior", "2", "100.0%"]
    assert "outside the grammar" in lines[3]


def test_unreadable_image_is_named(tmp_path):
    (tmp_path / "x.png").write_text("x")
    with pytest.raises(images.BadImage, match=r"x\.png: not an image"):
        generated.open_square(str(tmp_path / "x.png"))
    Image.new("RGB", (30, 20)).save(tmp_path / "wide.png")
    assert generated.open_square(str(tmp_path / "wide.png")).size == (20, 20)


def test_failed_image_stops_an_evaluation():
    results = Collected()
    results.report({"path": "a.png"})
    assert generated.complete(results, DONE) == ["a.png"]
    results.report({"error": "out of memory"})
    with pytest.raises(Failure, match="some images could not be generated: out of memory"):
        generated.complete(results, PARTIAL)


def test_training_conditions_are_read_from_the_checkpoint():
    assert [generated.trained_positions(f"starter/{name}") for name in ("decoder", "upsampler", "clip")] == [
        False, True, True,
    ]  # fmt: skip
    assert generated.trained_size("starter/decoder") == 64


def test_inputs_are_written_once(tmp_path):
    files = generated.Files(out=str(tmp_path))
    scenes = [("a red circle", Image.new("RGB", (8, 8), "red")), ("black", Image.new("RGB", (8, 8)))]
    paths = files.write_inputs("unclip", scenes)
    assert [Image.open(path).getpixel((0, 0)) for path in paths] == [(255, 0, 0), (0, 0, 0)]
    with pytest.raises(Failure, match="--overwrite"):
        files.write_inputs("unclip", scenes)
    assert generated.Files(out=str(tmp_path), skip_existing=True).write_inputs("unclip", scenes) == paths
    assert files.to("clean").out == f"{tmp_path}/clean"


def test_options_become_those_of_a_creating_command():
    options = generated.Generation(steps="8", guidance_scale=2.0, seed=3, out="a", batch_size=4, quiet=True)
    how = options.to("b").generation("glide", InpaintOptions, lines=["x"], sampling={"sampler": "ddim"})
    assert how == InpaintOptions(
        recipe="glide", sampling={"steps": "8", "guidance_scale": 2.0, "sampler": "ddim"}, seed=3, out="a/b",
        batch_size=4, quiet=True, lines=["x"],
    )  # fmt: skip
    assert options.latent_options("unclip").sampling == {"steps": "8", "guidance_scale": 2.0}
    assert generated.Files(steps="8").generation("glide").sampling == {"steps": "8"}
