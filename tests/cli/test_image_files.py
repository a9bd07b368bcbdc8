import io

import numpy as np
import pytest
from PIL import Image

from dalle_cli.generate.metadata import read
from tests.cli.conftest import one_line
from tests.fixtures.miniatures import SIZE, noise


@pytest.fixture
def image(tmp_path):
    noise(1, 24, 16).save(tmp_path / "dog.png")
    return "dog.png"


def test_inpaint_changes_only_the_box(dalle, glide, image):
    ended = dalle("inpaint", image, "a circle", "--box", "2,2,6,6", "--recipe", glide.inpaint, "--steps", 3, "-q")
    assert ended.code == 0, ended.err
    before, after = np.asarray(Image.open(image)), np.asarray(Image.open(ended.result["path"]))
    assert np.array_equal(after[8:], before[8:])
    assert not np.array_equal(after[2:8, 2:8], before[2:8, 2:8])


def test_upscale_enlarges(dalle, glide, image):
    ended = dalle("upscale", image, "--recipe", glide.upsampler, "--steps", 2, "--prompt", "a star", "-q")
    assert ended.code == 0, ended.err
    assert Image.open(ended.result["path"]).size == (48, 32)


def test_unclip_reranks_and_reproduces(dalle, unclip):
    words = ("--prior-samples", 3, "--prior-steps", 3, "--prior-guidance-scale", 2, "--steps", 3, "-q")
    words = (*words, "--precision", "float32")
    ended = dalle("sample", "a red circle", "--recipe", unclip.recipe, "--rerank", 2, "--out", "a", *words)
    assert ended.code == 0, ended.err
    first = ended.result["path"]
    assert Image.open(first).size == (16, 16)
    metadata = read(first)["dalle"]
    assert {metadata["options"][key] for key in ("prior_samples", "prior_steps", "prior_guidance_scale")} == {
        3,
        "3",
        2.0,
    }
    assert metadata["models"].keys() == {"prior", "decoder", "upsampler", "clip", "reranker"}
    again = dalle("sample", "--reproduce", first, "--out", "b", "--precision", "float32", "-q").result["path"]
    assert np.array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(first)))
    other = dalle("sample", "--reproduce", first, "--prior-samples", 1, "--out", "c", "--precision", "float32", "-q")
    assert not np.array_equal(np.asarray(Image.open(other.result["path"])), np.asarray(Image.open(first)))


def test_unclip_inpaints_and_upscales(dalle, unclip, image):
    words = ("--recipe", unclip.recipe, "--steps", 2, "-q")
    ended = dalle("inpaint", image, "a circle", "--box", "2,2,6,6", *words)
    assert ended.code == 0, ended.err
    before, after = np.asarray(Image.open(image)), np.asarray(Image.open(ended.result["path"]))
    assert np.array_equal(after[8:], before[8:])
    assert not np.array_equal(after[2:8, 2:8], before[2:8, 2:8])
    ended = dalle("upscale", image, *words, "--out", "large")
    assert ended.code == 0, ended.err
    assert Image.open(ended.result["path"]).size == (48, 32)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("inpaint", "dog.png", "a circle"), 3),  # nothing says where
        (("inpaint", "dog.png", "a circle", "--box", "1,2"), 2),
        (("inpaint", "none.png", "a circle", "--box", "1,1,4,4"), 3),
        (("inpaint", "dog.png"), 2),
        (("upscale", "none.png"), 3),
    ],
)
def test_errors_are_one_line(dalle, glide, image, words, code):
    ended = dalle(*words, "--recipe", glide.upsampler if words[0] == "upscale" else glide.inpaint)
    assert (ended.code, one_line(ended.err)) == (code, True), ended.err


@pytest.mark.parametrize("words", [("inpaint", "dog.png", "a star", "--box", "1,1,4,4"), ("upscale", "dog.png")])
def test_missing_weights_are_named(dalle, image, words):
    ended = dalle(*words, "--recipe", "glide-tiny")
    assert (ended.code, one_line(ended.err)) == (3, True)
    assert "no checkpoint 'checkpoints/decoder-" in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("inpaint", "dog.png", "a star", "--box", "1,1,4,4", "--recipe", "INPAINT"), "1 files in none"),
        (("upscale", "dog.png", "--recipe", "UPSAMPLER"), "1 files in none"),
        (("reconstruct", "dog.png", "--model", "DVAE"), "1 files in none"),
    ],
)
def test_dry_run_writes_nothing(dalle, glide, tiny, image, tmp_path, words, said):
    known = {"INPAINT": glide.inpaint, "UPSAMPLER": glide.upsampler, "DVAE": tiny.dvae}
    before = sorted(tmp_path.rglob("*"))
    ended = dalle(*(known.get(word, word) for word in words), "--dry-run", "--out", "none")
    assert (ended.code, ended.out) == (0, ""), ended.err
    assert said in ended.err
    assert ".safetensors" in ended.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_box_beyond_the_image_is_said(dalle, glide, image):
    words = ("--recipe", glide.inpaint, "--steps", 2)
    ended = dalle("inpaint", image, "a star", "--box", "20,10,8,8", *words)
    assert ended.code == 0, ended.err
    assert "dog.png: box 20,10,8,8 reaches beyond the image of 24x16 px: only the part inside is inpainted" in ended.err
    inside = dalle("inpaint", image, "a star", "--box", "16,8,8,8", *words, "--out", "b")
    assert "reaches beyond" not in inside.err


def pixels_of(path):
    return np.asarray(Image.open(path))


def test_reconstruct_writes_pairs_and_figures(dalle, tiny, tmp_path):
    for i in range(2):
        noise(i).save(tmp_path / f"{i}.png")
    ended = dalle("reconstruct", "0.png", "1.png", "--model", tiny.dvae, "--sheet", "pairs.png")
    assert ended.code == 0
    assert [line["image"] for line in ended.results] == ["0.png", "1.png"]
    for i, line in enumerate(ended.results):
        pair = pixels_of(line["path"]).astype(float)
        assert np.array_equal(pair[:SIZE], pixels_of(f"{i}.png"))
        psnr = -10 * np.log10(np.mean(((pair[:SIZE] - pair[SIZE:]) / 255) ** 2))
        assert line["psnr"] == pytest.approx(psnr, abs=0.05)  # of 8-bit values
        assert 1 <= line["unique_tokens"] <= 16
    mean = sum(line["psnr"] for line in ended.results) / 2
    assert f"2 images at {SIZE} px: mean PSNR {mean:.1f}"[:-1] in ended.err
    assert Image.open("pairs.png").size[1] > 2 * SIZE
    assert dalle("reconstruct", "0.png", "--model", tiny.dvae).code == 73


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("none.png",), 3, "no file 'none.png'"),
        (("0.png", "--size", "30"), 2, "give a multiple of 4"),
        (("0.png", "--model", "gone"), 3, "no checkpoint 'gone'"),
        (("empty",), 3, "empty: no images in this folder"),
    ],
)
def test_reconstruct_says_what_is_wrong(dalle, tiny, tmp_path, words, code, said):
    noise().save(tmp_path / "0.png")
    (tmp_path / "empty").mkdir()
    ended = dalle("reconstruct", "--model", tiny.dvae, *words)
    assert (ended.code, one_line(ended.err)) == (code, True), ended.err
    assert said in ended.err


def test_bad_image_is_a_result_with_error(dalle, tiny, tmp_path, monkeypatch):
    noise().save(tmp_path / "0.png")
    (tmp_path / "bad.png").write_text("not an image")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'bad.png\n0.png\n{"error": "earlier", "id": 1}\n')))
    ended = dalle("reconstruct", "-", "--model", tiny.dvae)
    assert ended.code == 4
    assert sorted(line.get("error", "") for line in ended.results) == ["", "bad.png: not an image", "earlier"]
