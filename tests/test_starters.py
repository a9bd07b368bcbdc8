"""The shipped weights: they reach the figures that the README gives, on fewer pictures than `dalle evaluate` takes."""

import json
import time

import pytest

from dalle_cli import checkpoint, evaluate, images
from dalle_cli.data.scenes.objects import MissingFont, load_object_set
from dalle_cli.evaluate import samples, suite
from dalle_cli.evaluate.checker import SceneChecker
from dalle_cli.evaluate.protocols import upscale
from dalle_cli.generate.options import GenerationOptions
from dalle_cli.generate.outputs import Collected
from dalle_cli.generate.sample import SampleOptions, sample
from dalle_cli.generate.upscale import upscale as enlarge

NAMES = {"dvae", "clip", "dalle", "decoder", "upsampler", "prior", "prior-ar", "noised-clip"}


@pytest.fixture
def emoji():
    try:
        return load_object_set("everyday")
    except MissingFont as error:
        pytest.skip(str(error))


def test_together_they_are_small():
    files = list(checkpoint.resolve("starter/clip").parent.glob("*.safetensors"))
    assert {file.stem for file in files} == NAMES
    assert sum(file.stat().st_size for file in files) < 40e6


def test_the_transformer_s_codes_are_the_dvae_s():
    recipe = checkpoint.metadata(checkpoint.resolve("starter/dalle"))["recipe"]
    assert recipe["frozen"] == {"dvae": "starter/dvae"}


@pytest.mark.parametrize(
    ("system", "options"), [("glide", {}), ("glide", {"guidance": "clip"}), ("glide-inpaint", {}), ("unclip", {})]
)
def test_a_system_of_the_shipped_weights_draws(system, options, tmp_path):
    results = Collected()
    options = {"steps": "4", "up_steps": "2", **options}
    how = SampleOptions(recipe=system, out=str(tmp_path), quiet=True, sampling=options)
    assert sample(["a red apple"], how, results=results) == 0
    assert images.decode(results.reported[0]["path"]).size == (256, 256)


def test_the_dvae_keeps_unseen_scenes(emoji):
    result = evaluate.dvae("starter/dvae", num_images=500)
    assert result.psnr >= 24
    assert result.codebook_usage > 0.8


def test_clip_finds_the_caption_of_unseen_scenes(emoji):
    result = evaluate.retrieval("starter/clip", num_samples=300, pool_size=100)
    assert result.image_to_text_r1 > 0.9


def test_an_avocado_chair_is_drawn_in_seconds(tmp_path):
    began = time.monotonic()
    results = Collected()
    how = SampleOptions(rerank=128, top=4, out=str(tmp_path / "out"), sheet=str(tmp_path / "s.png"), quiet=True)
    assert sample(["avocado chair"], how, results=results) == 0
    assert time.monotonic() - began < 60
    assert [result["score"] for result in results.reported] == sorted(
        (result["score"] for result in results.reported), reverse=True
    )
    assert images.decode(tmp_path / "s.png").size[0] > 2 * 64
    assert json.dumps(results.reported)


def test_held_out_captions_are_drawn(emoji, tmp_path):
    """Part of `dalle evaluate scenes`, with fewer candidates."""
    items = [item for item in suite.suite(emoji, 100) if item.category in ("background", "pair")]
    results = Collected()
    sample([item.caption for item in items], SampleOptions(rerank=8, out=str(tmp_path), quiet=True), results=results)
    report = suite.check_images(
        SceneChecker(emoji), items, [images.decode(result["path"]) for result in results.reported]
    )
    for one in report.accuracy().values():
        assert one.value >= 0.75


def test_the_noised_clip_finds_the_caption_of_unseen_scenes(emoji):
    """It ranks what DALL-E 1 draws."""
    assert evaluate.retrieval("starter/noised-clip", num_samples=300, pool_size=100).image_to_text_r1 > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("system", ["glide", "unclip"])
def test_two_things_stand_where_held_out_captions_say(emoji, system, tmp_path):
    """Part of `dalle evaluate scenes`, of captions that a decoder learns last."""
    items = [item for item in suite.suite(emoji, 40) if item.category in ("pair", "relation")]
    results = Collected()
    sample(
        [item.caption for item in items], SampleOptions(recipe=system, out=str(tmp_path), quiet=True), results=results
    )
    report = suite.check_images(
        SceneChecker(emoji), items, [images.decode(result["path"]) for result in results.reported]
    )
    for one in report.accuracy().values():
        assert one.value >= 0.85


@pytest.mark.parametrize(("kind", "gain"), [("clean", 3.0), ("degraded", 2.0)])
def test_the_upsampler_is_above_bicubic(emoji, kind, gain, tmp_path):
    """Part of `dalle evaluate upscale`."""
    pairs = list(upscale.pairs(samples.unseen(8, 256, "everyday"), 4, kind))
    for number, pair in enumerate(pairs):
        images.save_png(pair.small, tmp_path / f"{number}.png")
    paths, results = [str(tmp_path / f"{number}.png") for number in range(8)], Collected()
    options = GenerationOptions(recipe="glide", seed=0, out=str(tmp_path / "out"), quiet=True)
    assert enlarge(paths, options=options, results=results) == 0
    upscaled = [images.decode(result["path"]) for result in results.reported]
    assert upscale.compare(kind, pairs, upscaled).gain.value > gain
