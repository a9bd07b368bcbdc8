import json

import numpy as np
import pytest
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.generate.metadata import read
from dalle_cli.generate.options import GenerationOptions
from dalle_cli.generate.outputs import Collected
from dalle_cli.generate.sample import SampleOptions, sample
from dalle_cli.generate.upscale import upsampler_sizes
from dalle_cli.generate.upscale import upscale as enlarge
from dalle_cli.registry import RecipeError
from tests.fixtures.miniatures import noise


@pytest.fixture
def upscale(glide, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    noise(1, 7, 9).save("dog.png")

    def run(*paths, prompt=None, recipe=None, options=None, code=0, **how):
        capsys.readouterr()
        sampling = {"steps": "3", **(options or {})}
        how = {"json": True, "quiet": True, "precision": "float32", **how}
        assert enlarge(paths, prompt, GenerationOptions(recipe or glide.upsampler, sampling, **how)) == code
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def test_images_of_any_shape_are_enlarged_reproducibly(upscale):
    (one,) = upscale("dog.png", prompt="a star", sheet="sheet.png")
    assert pixels(one["path"]).shape == (18, 14, 3)
    assert np.array_equal(pixels(upscale("dog.png", prompt="a star", out="b")[0]["path"]), pixels(one["path"]))
    for changes in ({"prompt": "a circle"}, {"seed": 3}, {"options": {"sampler": "ddpm"}}, {"options": {"steps": "5"}}):
        other = upscale("dog.png", **{"prompt": "a star", "out": str(changes)} | changes)
        assert not np.array_equal(pixels(other[0]["path"]), pixels(one["path"])), changes
    assert (read(one["path"])["dalle"]["command"], one["prompt"], one["image"]) == ("upscale", "a star", "dog.png")
    assert Image.open("sheet.png").size[0] >= 14


def test_captions_come_from_the_metadata(upscale, glide):
    sampled = Collected()
    how = SampleOptions(recipe=glide.decoder, sampling={"steps": "2"}, out="small", quiet=True)
    sample(["a circle"], how, results=sampled)
    (results,) = upscale(sampled.reported[0]["path"])
    assert results["prompt"] == "a circle"
    assert pixels(results["path"]).shape == (16, 16, 3)
    (own,) = upscale(json.dumps({"image": "dog.png", "prompt": "a star"}), out="b")
    assert own["prompt"] == "a star"
    assert upscale("dog.png", out="c")[0]["prompt"] == ""


def test_a_system_names_its_upsampler(upscale, glide):
    (one,), (other,) = upscale("dog.png", out="a"), upscale("dog.png", recipe=glide.recipe, out="b")
    assert np.array_equal(pixels(one["path"]), pixels(other["path"]))


def test_two_stage_upsamplers_work_by_themselves(upscale, unclip):
    (one,) = upscale("dog.png", recipe=unclip.last_step)
    assert pixels(one["path"]).shape == (18, 14, 3)


def test_bad_images_become_failed_results(upscale):
    noise(2, 40, 8).save("wide.png")
    open("text.png", "w").close()
    results = upscale("wide.png", "text.png", "dog.png", code=4)
    assert [result.get("error", "")[:30] for result in results] == [
        "wide.png: 40x8 px; this upsamp", "text.png: not an image", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "said"),
    [("dalle1", "this system has no upsampler"), ("decoder", "generates images and enlarges none")],
)
def test_other_models_are_refused(upscale, glide, recipe, said):
    with pytest.raises(RecipeError, match=said):
        upscale("dog.png", recipe=getattr(glide, recipe, recipe))


def test_options_are_checked_before_loading(upscale, monkeypatch):
    monkeypatch.setattr(checkpoint, "load", None)
    with pytest.raises(RecipeError, match="steps 'x'"):
        upscale("dog.png", options={"steps": "x"})
    with pytest.raises(RecipeError, match="'euler' is not one of d"):
        upscale("dog.png", options={"sampler": "euler"})


def test_upsampler_sizes_without_loading(glide, unclip, monkeypatch):
    monkeypatch.setattr(checkpoint, "load", None)
    assert upsampler_sizes(glide.upsampler) == (16, 2)
    assert upsampler_sizes(unclip.last_step) == (16, 2)
    with pytest.raises(RecipeError, match="enlarges none"):
        upsampler_sizes(glide.decoder)


def test_results_can_be_collected(glide, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    noise(1, 8, 8).save("dog.png")
    results = Collected()
    how = GenerationOptions(glide.upsampler, {"steps": "2"}, quiet=True, precision="float32")
    code = enlarge(["dog.png"], options=how, results=results)
    assert (code, capsys.readouterr().out) == (0, "")
    assert pixels(results.reported[0]["path"]).shape == (16, 16, 3)
