import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.exits import DONE, PARTIAL, WOULD_OVERWRITE, Failure
from dalle_cli.generate import inpaint as module
from dalle_cli.generate.inpaint import InpaintOptions
from dalle_cli.generate.metadata import read
from dalle_cli.generate.outputs import Collected
from dalle_cli.generate.requests import PromptError
from dalle_cli.registry import RecipeError
from tests.fixtures.miniatures import noise


@pytest.fixture
def inpaint(glide, tmp_path, monkeypatch):
    """Inpaint from a folder that holds an image; return the results."""
    monkeypatch.chdir(tmp_path)
    noise(1, 60, 40).save("dog.png")

    def run(image="dog.png", *words, code=DONE, lines=(), **job):
        results = Collected()
        sampling = {"steps": "3", **job.pop("options", {})}
        job = {"recipe": glide.inpaint, "precision": "float32", "quiet": True, "sampling": sampling, **job}
        assert module.inpaint(InpaintOptions(image=image, prompts=words, lines=lines, **job), results) == code
        return results.reported

    return run


@pytest.fixture
def no_models(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(checkpoint, "load", fail)


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("recipe", ["inpaint", "decoder", "recipe", "label"])
def test_any_decoder_changes_only_the_mask(inpaint, glide, recipe):
    results = inpaint("dog.png", "a circle", box="20,10,16,12", num_images=2, recipe=getattr(glide, recipe))
    before = pixels("dog.png")
    outside = np.ones((40, 60), dtype=bool)
    outside[10:22, 20:36] = False
    for result in results:
        after = pixels(result["path"])
        assert np.array_equal(after[outside], before[outside])
        assert not np.array_equal(after[~outside], before[~outside])
    assert not np.array_equal(*(pixels(result["path"]) for result in results))
    assert read(results[0]["path"])["dalle"]["command"] == "inpaint"
    assert (results[1]["box"], results[1]["image"], results[1]["sample_index"]) == ([20, 10, 16, 12], "dog.png", 1)


def test_images_do_not_depend_on_the_batch(inpaint):
    together = inpaint("dog.png", "a circle", "a star", box="20,10,16,12", num_images=3, out="a")
    alone = inpaint("dog.png", "a circle", box="20,10,16,12", num_images=3, out="b", batch_size=1)
    for one, other in zip(together[:3], alone):
        assert np.abs(pixels(one["path"]).astype(int) - pixels(other["path"])).mean() < 0.1
    assert [result["prompt"] for result in together] == ["a circle"] * 3 + ["a star"] * 3


def test_script_lines_continue_from_the_last_image(inpaint):
    steps = [
        {"prompt": "a circle", "box": [2, 2, 10, 10]},
        {"prompt": "a star", "box": [40, 20, 12, 12], "mood": "glad"},
    ]
    with open("room.jsonl", "w") as file:
        file.writelines(json.dumps(step) + "\n" for step in steps)
    first, second = inpaint(script="room.jsonl")
    start, middle, end = (pixels(path) for path in ("dog.png", first["path"], second["path"]))
    assert not np.array_equal(middle[2:12, 2:12], start[2:12, 2:12])
    assert np.array_equal(end[2:12, 2:12], middle[2:12, 2:12])
    assert not np.array_equal(end[20:32, 40:52], middle[20:32, 40:52])
    assert (second["image"], second["mood"]) == (first["path"], "glad")
    kept = end.copy()
    (end_again,) = inpaint(script="room.jsonl", skip_existing=True)[1:]
    assert end_again["skipped"]
    Path(second["path"]).write_bytes(b"cut short")  # generated again from the first, which exists
    again = inpaint(script="room.jsonl", skip_existing=True)
    assert [result.get("skipped", False) for result in again] == [True, False]
    assert np.array_equal(pixels(again[1]["path"]), kept)
    assert again[1]["image"] == first["path"]
    Path(first["path"]).unlink()  # the second stands on what is gone
    again = inpaint(script="room.jsonl", skip_existing=True, seed=0)
    assert [result.get("skipped", False) for result in again] == [False, False]


def test_lines_name_their_images(inpaint, monkeypatch):
    noise(2, 30, 30).save("cat.png")
    Image.new("L", (30, 30), 255).save("all.png")
    lines = [
        {"image": "cat.png", "prompt": "a circle", "mask": "all.png", "seed": 5},
        {"path": "dog.png", "prompt": "a star"},
        {"prompt": "a star", "error": "no good"},
    ]
    text = "\n".join(map(json.dumps, lines)).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    results = inpaint("-", box="1,1,9,9", code=PARTIAL)
    assert [result.get("image") for result in results] == ["cat.png", "dog.png", None]
    assert results[0]["seed"] == 5
    assert np.array_equal(pixels(results[1]["path"])[12:], pixels("dog.png")[12:])
    assert results[2]["error"] == "no good"


def test_bad_lines_become_failed_results(inpaint, monkeypatch):
    good = {"image": "dog.png", "prompt": "a star", "box": [2, 3, 8, 8]}
    bad = [{**good, "box": [1, 2, 3]}, {"image": "dog.png", "box": [2, 3, 8, 8]}, {**good, "mask": "none.png"}]
    Path("broken.png").write_bytes(b"broken")
    bad.append({**good, "image": "broken.png"})
    text = "\n".join(json.dumps(line) for line in [bad[0], good, *bad[1:]]).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    results = inpaint("-", code=PARTIAL)
    assert "path" in results[0]
    assert [bool(one.get("error")) for one in results] == [False, True, True, True, True]
    assert {"box [1, 2, 3]", "a line without 'prompt'"} <= {one.get("error", "").split(":")[0] for one in results}


def test_transparency_outside_the_mask_is_kept(inpaint):
    before = np.dstack([pixels("dog.png"), np.random.default_rng(0).integers(0, 255, (40, 60), np.uint8)])
    Image.fromarray(before).save("glass.png")
    (results,) = inpaint("glass.png", "a star", box="20,10,16,12")
    after = pixels(results["path"])
    outside = np.ones((40, 60), dtype=bool)
    outside[10:22, 20:36] = False
    assert np.array_equal(after[outside], before[outside])
    assert (after[~outside][:, 3] == 255).all()
    (results,) = inpaint("glass.png", "a star", out="filled")  # all of it is the mask
    assert pixels(results["path"]).shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        (("dog.png",), Failure, "inpaint with what"),
        (("-", "a circle"), Failure, "leave out prompts and --script"),
        (("dog.png", "a star"), Failure, "Give --mask, --box"),
    ],
)
def test_missing_arguments_are_named(inpaint, no_models, how, error, said):
    with pytest.raises(error, match=said):
        inpaint(*how)


@pytest.mark.parametrize(
    ("job", "error", "said"),
    [
        ({"box": "1,2,3"}, Failure, "box 1,2,3: give four integers"),
        ({"box": "a,b,c,d"}, Failure, "give four integers"),
        ({"box": "90,90,5,5"}, Failure, "lies outside the image of 60x40 px"),
        ({"mask": "none.png"}, ValueError, r"mask none\.png: "),
        ({"script": "room.jsonl"}, Failure, "leave out prompts and -n"),
        ({"box": "1,1,5,5", "recipe": "dalle1"}, RecipeError, "inpainting needs diffusion"),
        ({"box": "1,1,5,5", "options": {"steps": "x"}}, RecipeError, "steps 'x'"),
        ({"box": "1,1,5,5", "sheet": "sheet.jpg"}, Failure, "a sheet is a PNG"),
    ],
)
def test_invalid_arguments_are_refused_before_loading(inpaint, no_models, job, error, said):
    with pytest.raises(error, match=said):
        inpaint("dog.png", "a star", **job)


def test_existing_files_are_not_replaced(inpaint, no_models):
    os.mkdir("out")
    noise().save("out/000000-0-a-star.png")
    with pytest.raises(Failure, match="already exists") as failure:
        inpaint("dog.png", "a star", box="1,1,5,5")
    assert failure.value.code == WOULD_OVERWRITE


def test_lines_without_a_prompt_are_named(inpaint, no_models, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"image": "dog.png"}')))
    with pytest.raises(PromptError, match=r"a line without 'prompt': dog\.png"):
        inpaint("-")


def test_lines_can_be_passed_from_python(inpaint):
    noise(2, 30, 30).save("cat.png")
    lines = [json.dumps({"image": name, "prompt": "a star", "box": [2, 3, 8, 8]}) for name in ("dog.png", "cat.png")]
    results = inpaint("-", lines=lines)
    assert [one["image"] for one in results] == ["dog.png", "cat.png"]
    for one in results:
        before, after = pixels(one["image"]), pixels(one["path"])
        assert np.array_equal(after[11:], before[11:])
        assert not np.array_equal(after, before)
