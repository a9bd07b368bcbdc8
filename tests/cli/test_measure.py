import os

import numpy as np
import pytest
from PIL import Image

from dalle_cli import images
from dalle_cli.cli.measure import trained_scatter
from dalle_cli.evaluate import inpaint as holes
from dalle_cli.evaluate import upscale as measuring
from dalle_cli.generate import upscale as upscaling
from dalle_cli.generate.ddim_inversion import DDIMInversion
from dalle_cli.generate.inpaint_crop import InpaintCrop
from tests.cli.conftest import one_line

SHAPES = ("--objects", "shapes", "-q")


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


@pytest.fixture
def upscale(dalle, glide):
    def run(*words, **how):
        return dalle("evaluate", "upscale", "--model", glide.upsampler, "-n", 3, "--steps", 2, *SHAPES, *words, **how)

    return run


def test_an_upsampler_is_held_against_bicubic(upscale, dalle, glide):
    clean, degraded = upscale("--sheet", "s.png").results
    assert [one["input"] for one in (clean, degraded)] == list(measuring.KINDS)
    for one in (clean, degraded):
        assert one["pictures"] == 3
        assert one["gain"] == pytest.approx(one["psnr"] - one["bicubic"])
        assert one["gain"] < 0  # the network is untrained
        files = sorted(os.listdir(f"out/upscale/{one['input']}/drawn"))
        drawn = [Image.open(f"out/upscale/{one['input']}/drawn/{name}") for name in files]
        pairs = list(measuring.pairs(3, 16, 2, "shapes", one["input"]))
        assert one["psnr"] == pytest.approx(measuring.score(one["input"], pairs, drawn).drawn.value)
    assert Image.open("s.png").size[0] >= 4 * 16
    again = upscale()
    assert (again.code, one_line(again.err)) == (73, True)
    assert upscale("--skip-existing").results == [clean, degraded]
    shown = upscale("--out", "b", terminal=True).out
    assert f"{clean['bicubic']:.2f}" in shown
    system = dalle("evaluate", "upscale", "--recipe", glide.recipe, "-n", 3, "--steps", 2, *SHAPES, "--out", "c")
    assert system.results[0]["psnr"] == pytest.approx(clean["psnr"])


def test_a_perfect_upsampler_gains(upscale, monkeypatch):
    truths = iter([pair.large for kind in measuring.KINDS for pair in measuring.pairs(3, 16, 2, "shapes", kind)])
    monkeypatch.setattr(upscaling, "_enlarge", lambda *_: images.to_tensor(next(truths)))
    for one in upscale().results:
        assert one["psnr"] == pytest.approx(100)
        assert one["gain"] > 20


@pytest.fixture
def inpaint(dalle, glide):
    def run(*words, **how):
        recipe = ("--recipe", glide.inpaint)
        return dalle("evaluate", "inpaint", *recipe, "-n", 3, "--steps", 2, *SHAPES, *words, **how)

    return run


def test_holes_are_filled_and_judged(inpaint):
    one = inpaint("--sheet", "s.png").result
    assert (one["inside"], one["untouched"]) == (0, 1)
    assert one["inside_interval"][1] < 0.6
    names = sorted(os.listdir("out/inpaint/given"))
    assert len(names) == 3
    for hole, name, drawn in zip(holes.holes(3, 8, "shapes"), names, sorted(os.listdir("out/inpaint/drawn"))):
        assert np.array_equal(pixels(f"out/inpaint/given/{name}"), hole.picture)
        assert not np.array_equal(pixels(f"out/inpaint/drawn/{drawn}"), hole.picture)
    assert Image.open("s.png").size[0] > 3 * 8
    again = inpaint()
    assert (again.code, one_line(again.err)) == (73, True)
    assert inpaint("--skip-existing").result == one
    assert "unchanged to the bit: 3 of 3" in inpaint("--overwrite", terminal=True).out
    assert inpaint("--dry-run", "--out", "b").out == ""
    assert not os.path.exists("b")


def test_a_decoder_is_measured_on_places_that_it_knows(inpaint, monkeypatch):
    asked = []
    monkeypatch.setattr(holes, "holes", lambda *words, whole=holes.holes: asked.append(words) or whole(*words))
    monkeypatch.setattr("dalle_cli.cli.measure.trained_scatter", lambda name: False)
    inpaint()
    assert asked == [(3, 8, "shapes", False)]
    assert [trained_scatter(f"starter/{name}") for name in ("decoder", "upsampler", "clip")] == [False, True, True]


def test_what_is_changed_outside_the_hole_is_counted(inpaint, monkeypatch):
    def fill(canvas, drawn):
        return Image.fromarray(255 - np.asarray(canvas.picture))

    monkeypatch.setattr(InpaintCrop, "paste", fill)
    assert inpaint().result["untouched"] == 0


def test_inversion(dalle, glide, unclip, monkeypatch):
    words = ("-n", 3, "--steps", 4, *SHAPES)
    one = dalle("evaluate", "inversion", "--recipe", glide.decoder, *words, "--sheet", "s.png").result
    assert (one["pictures"], one["steps"], one["refine"]) == (3, "4", 3)
    assert one["psnr_interval"][0] <= one["psnr"] <= one["psnr_interval"][1]
    assert Image.open("s.png").size[0] >= 16
    rough = dalle("evaluate", "inversion", "--recipe", glide.decoder, *words, "--refine", 0).result
    assert rough["psnr"] < one["psnr"]
    assert dalle("evaluate", "inversion", "--recipe", unclip.recipe, *words).result["psnr"] > 0
    monkeypatch.setattr(DDIMInversion, "_reconstruct", lambda self, given, texts, refine: given)
    same = dalle("evaluate", "inversion", "--recipe", glide.decoder, *words).result
    assert (same["psnr"], same["near"]) == (pytest.approx(100), 1)
    assert "PSNR 100.00" in dalle("evaluate", "inversion", "--recipe", glide.decoder, *words, terminal=True).out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("upscale", "--model", "DECODER"), 2, "draws pictures and enlarges none"),
        (("upscale", "--recipe", "dalle1"), 2, "this system has no upsampler"),
        (("upscale", "--recipe", "dalle1", "--model", "gone"), 2, "not both"),
        (("upscale", "--model", "DECODER", "--steps", "x"), 2, "steps 'x'"),
        (("upscale", "--model", "UPSAMPLER", "--sheet", "s.jpg"), 2, "ends in .png"),
        (("inpaint", "--recipe", "dalle1"), 2, "inpainting needs diffusion"),
        (("inpaint", "--recipe", "DECODER", "--objects", "shape"), 2, "did you mean 'shapes'"),
        (("inversion", "--recipe", "dalle1"), 2, "inversion needs diffusion"),
        (("inversion", "--recipe", "UPSAMPLER"), 2, "enlarges pictures"),
        (("inversion", "--recipe", "gone/away"), 3, "no checkpoint"),
    ],
)
def test_mistakes_get_a_line_and_their_code(dalle, glide, words, code, said):
    known = {"DECODER": glide.decoder, "UPSAMPLER": glide.upsampler}
    ended = dalle("evaluate", *(known.get(word, word) for word in words), "-n", 2, "-q")
    assert (ended.code, ended.out, one_line(ended.err)) == (code, "", True), ended.err
    assert said in ended.err
