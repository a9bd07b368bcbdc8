from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle_cli import images
from dalle_cli.evaluate import samples
from dalle_cli.evaluate.protocols.upscale import KINDS, Upscaling, bicubic, compare, pairs
from dalle_cli.generate import upscale as generate_upscale
from tests.cli.conftest import one_line
from tests.fixtures.miniatures import noise

SHAPES = ("--objects", "shapes", "-q")


def test_pairs_are_unseen_scenes_and_their_reductions():
    clean, degraded = (list(pairs(samples.unseen(6, 32, "shapes"), 4, kind)) for kind in KINDS)
    for pair, other, sample in zip(clean, degraded, samples.unseen(6, 32, "shapes")):
        assert (pair.caption, other.caption) == (sample.caption, sample.caption)
        assert np.array_equal(np.asarray(pair.large), sample.image)
        assert pair.small.size == other.small.size == (8, 8)
        boxes = sample.image.astype(float).reshape(8, 4, 8, 4, 3).mean((1, 3))
        assert np.abs(np.asarray(pair.small) - boxes).max() <= 0.51  # reduced by area and rounded
    assert sum(not np.array_equal(np.asarray(a.small), np.asarray(b.small)) for a, b in zip(clean, degraded)) >= 4
    again = list(pairs(samples.unseen(6, 32, "shapes"), 4, "degraded"))
    assert all(np.array_equal(np.asarray(a.small), np.asarray(b.small)) for a, b in zip(degraded, again))


@pytest.mark.parametrize("kind", KINDS)
def test_perfect_upsampler_beats_bicubic(kind):
    scenes = list(pairs(samples.unseen(5, 32, "shapes"), 4, kind))
    best = compare(kind, scenes, [pair.large for pair in scenes])
    assert best.upsampler.value == pytest.approx(100)
    assert best.gain.value == pytest.approx(100 - best.bicubic.value)
    assert best.gain.interval[0] > 20
    same = compare(kind, scenes, [bicubic(pair) for pair in scenes])
    assert same.gain.value == 0
    assert same.bicubic == best.bicubic
    inverted = [images.to_pil(-images.to_tensor(pair.large)) for pair in scenes]
    assert compare(kind, scenes, inverted).gain.value < -3
    head, *rows = Upscaling("glide", (best, same), []).table()
    assert head.split()[:3] == ["input", "images", "PSNR"]
    assert [row.split()[:2] for row in rows] == [[kind, "5"]] * 2
    assert "+0.00" in rows[1]
    assert best.to_json()["gain"] == best.gain.value
    assert compare(kind, scenes[:1], [scenes[0].large]).to_json()["gain_interval"] is None


def test_missing_images_are_an_error():
    with pytest.raises(ValueError, match="longer"):
        compare("clean", list(pairs(samples.unseen(2, 16, "shapes"), 2, "clean")), [])


@pytest.fixture
def upscale(dalle, glide):
    def run(*words, **how):
        model = ("--model", glide.upsampler)
        return dalle("evaluate", "upscale", *model, "-n", 3, "--steps", 2, *SHAPES, *words, **how)

    return run


def test_command_compares_with_bicubic(upscale, dalle, glide):
    clean, degraded = upscale("--sheet", "s.png").results
    assert [one["input"] for one in (clean, degraded)] == list(KINDS)
    for one in (clean, degraded):
        assert one["num_images"] == 3
        assert one["gain"] == pytest.approx(one["psnr"] - one["bicubic_psnr"])
        assert one["gain"] < 0  # the network is untrained
        folder = Path("out/upscale", one["input"], "generated")
        images = [Image.open(path) for path in sorted(folder.iterdir())]
        scenes = list(pairs(samples.unseen(3, 16, "shapes"), 2, one["input"]))
        assert one["psnr"] == pytest.approx(compare(one["input"], scenes, images).upsampler.value)
    assert Image.open("s.png").size[0] >= 4 * 16
    again = upscale()
    assert (again.code, one_line(again.err)) == (73, True)
    assert upscale("--skip-existing").results == [clean, degraded]
    assert f"{clean['bicubic_psnr']:.2f}" in upscale("--out", "b", terminal=True).out
    system = ("--recipe", glide.recipe, "--out", "c")
    by_system = dalle("evaluate", "upscale", *system, "-n", 3, "--steps", 2, *SHAPES).results
    assert by_system[0]["psnr"] == pytest.approx(clean["psnr"])


def test_own_images_replace_scenes(upscale, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(2):
        noise(number, 24, 20).save(tmp_path / "photos" / f"{number}.png")
    lines = upscale("data.path=photos").results
    assert [one["num_images"] for one in lines] == [2, 2]
    assert len(list(Path("out/upscale/clean/inputs").iterdir())) == 2


def test_perfect_upsampler_gains(upscale, monkeypatch):
    truths = iter([pair.large for kind in KINDS for pair in pairs(samples.unseen(3, 16, "shapes"), 2, kind)])
    monkeypatch.setattr(generate_upscale, "_enlarge", lambda *_: images.to_tensor(next(truths)))
    for one in upscale().results:
        assert one["psnr"] == pytest.approx(100)
        assert one["gain"] > 20


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--model", "DECODER"), 2, "DECODER"),
        (("--recipe", "dalle1"), 2, "upsampler"),
        (("--recipe", "dalle1", "--model", "gone"), 2, "not both"),
        (("--model", "DECODER", "--steps", "x"), 2, "steps 'x'"),
        (("--model", "UPSAMPLER", "--sheet", "s.jpg"), 2, "ends in .png"),
    ],
)
def test_usage_errors_are_one_line(dalle, glide, words, code, message):
    known = {"DECODER": glide.decoder, "UPSAMPLER": glide.upsampler}
    ended = dalle("evaluate", "upscale", *(known.get(word, word) for word in words), "-n", 2, "-q")
    assert (ended.code, ended.out, one_line(ended.err)) == (code, "", True), ended.err
    assert known.get(message, message) in ended.err
