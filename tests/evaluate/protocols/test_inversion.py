import pytest
from PIL import Image

from dalle_cli.generate.ddim_inversion import DDIMInversion
from tests.cli.conftest import one_line
from tests.fixtures.miniatures import noise

WORDS = ("-n", 3, "--steps", 4, "--objects", "shapes", "-q")


@pytest.fixture
def invert(dalle, glide):
    def run(*words, recipe=glide.decoder, **how):
        return dalle("evaluate", "inversion", "--recipe", recipe, *WORDS, *words, **how)

    return run


def test_command_reports_psnr(invert, unclip):
    line = invert("--sheet", "s.png").result
    assert (line["num_images"], line["steps"], line["inversion_iters"]) == (3, "4", 3)
    assert line["psnr_interval"][0] <= line["psnr"] <= line["psnr_interval"][1]
    assert Image.open("s.png").size[0] >= 16
    assert invert("--inversion-iters", 0).result["psnr"] < line["psnr"]
    assert invert(recipe=unclip.recipe).result["psnr"] > 0


def test_own_images_replace_scenes(invert, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(2):
        noise(number, 24, 16).save(tmp_path / "photos" / f"{number}.png")
    line = invert("data.path=photos").result
    assert line["num_images"] == 2
    assert line["psnr"] != invert().result["psnr"]


def test_exact_inversion_has_full_psnr(invert, monkeypatch):
    monkeypatch.setattr(DDIMInversion, "reconstruct", lambda self, images, *_: images)
    line = invert().result
    assert (line["psnr"], line["above_threshold"]) == (pytest.approx(100), 1)
    assert "PSNR 100.00" in invert(terminal=True).out


@pytest.mark.parametrize(
    ("recipe", "code", "message"),
    [
        ("dalle1", 2, "inversion needs diffusion"),
        ("UPSAMPLER", 2, "is an upsampler"),
        ("gone/away", 3, "no checkpoint"),
    ],
)
def test_usage_errors_are_one_line(invert, glide, recipe, code, message):
    ended = invert(recipe=glide.upsampler if recipe == "UPSAMPLER" else recipe)
    assert (ended.code, ended.out, one_line(ended.err)) == (code, "", True), ended.err
    assert message in ended.err
