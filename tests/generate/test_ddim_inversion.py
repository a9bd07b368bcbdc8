import pytest
import torch

from dalle_cli import images
from dalle_cli.generate.ddim_inversion import DDIMInversion
from dalle_cli.generate.latent_editor import LatentOptions
from dalle_cli.generate.outputs import Collected
from dalle_cli.generate.vary import vary
from dalle_cli.registry import RecipeError
from tests.fixtures.miniatures import noise


def pictures(count=3, size=8):
    return torch.stack([images.to_tensor(noise(i, size, size)) for i in range(count)])


@pytest.mark.parametrize("kind", ["glide", "label", "unclip"])
def test_pictures_come_back_and_more_exactly_the_more_is_solved_anew(request, kind):
    system = request.getfixturevalue("unclip" if kind == "unclip" else "glide")
    name = getattr(system, kind) if kind == "label" else system.recipe
    mirror, given = DDIMInversion(name, "10", "float32"), pictures()
    assert mirror.size == 8
    texts, counted = ["a circle", "a star", "a square"], []
    if kind == "label":
        texts = ["circle", "star", "square"]
    rough, fine = (mirror.reconstruct(given, texts, 2, refine, counted.append) for refine in (0, 4))
    assert counted == [2, 1, 2, 1]
    assert rough.shape == given.shape
    near = [sum(images.psnr(a, b) for a, b in zip(given, back)) / 3 for back in (rough, fine)]
    assert near[1] > near[0]
    alone = mirror.reconstruct(given[2:], texts[2:], iterations=4)
    torch.testing.assert_close(alone[0], fine[2], atol=1e-3, rtol=1e-3)


def test_unclip_comes_back_as_vary_does(unclip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise(1, 8, 8).save("a.png")
    found = Collected()
    vary(["a.png"], [0.0], 1, LatentOptions(unclip.recipe, {"steps": "6"}, quiet=True, precision="float32"), found)
    given = images.to_tensor(images.decode("a.png"))
    (back,) = DDIMInversion(unclip.recipe, "6", "float32").reconstruct(given[None], ["not read"])
    assert found.reported[0]["psnr"] == pytest.approx(images.psnr(given, back), abs=0.3)


def test_texts_are_read_by_glide(glide):
    mirror, given = DDIMInversion(glide.decoder, "4", "float32"), pictures(1)
    one, other = (
        mirror.reconstruct(given, [text], iterations=0) for text in ("a circle", "a green star on a pink background")
    )
    assert (one - other).abs().max() > 1e-4


def test_systems_without_noise_and_bad_steps_are_refused(glide):
    with pytest.raises(RecipeError, match="inversion needs diffusion"):
        DDIMInversion("dalle1", "5")
    with pytest.raises(RecipeError, match="steps 'x'"):
        DDIMInversion(glide.decoder, "x")
