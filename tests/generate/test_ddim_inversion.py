import pytest
import torch

from dalle_cli import images
from dalle_cli.generate.ddim_inversion import DDIMInversion
from dalle_cli.generate.latent_editor import LatentOptions
from dalle_cli.generate.outputs import Collected
from dalle_cli.generate.vary import vary
from dalle_cli.registry import RecipeError
from tests.fixtures.miniatures import noise


def random_images(count=3, size=8):
    return torch.stack([images.to_tensor(noise(i, size, size)) for i in range(count)])


@pytest.mark.parametrize("kind", ["glide", "label", "unclip"])
def test_iterations_improve_the_reconstruction(request, kind):
    system = request.getfixturevalue("unclip" if kind == "unclip" else "glide")
    name = getattr(system, kind) if kind == "label" else system.recipe
    inversion, originals = DDIMInversion(name, "10", "float32"), random_images()
    assert inversion.size == 8
    texts, counted = ["a circle", "a star", "a square"], []
    if kind == "label":
        texts = ["circle", "star", "square"]
    rough, fine = (inversion.reconstruct(originals, texts, 2, refine, counted.append) for refine in (0, 4))
    assert counted == [2, 1, 2, 1]
    assert rough.shape == originals.shape
    psnr = [sum(images.psnr(a, b) for a, b in zip(originals, back)) / 3 for back in (rough, fine)]
    assert psnr[1] > psnr[0]
    alone = inversion.reconstruct(originals[2:], texts[2:], iterations=4)
    torch.testing.assert_close(alone[0], fine[2], atol=1e-3, rtol=1e-3)


def test_unclip_inverts_as_vary_does(unclip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise(1, 8, 8).save("a.png")
    results = Collected()
    vary(["a.png"], [0.0], 1, LatentOptions(unclip.recipe, {"steps": "6"}, quiet=True, precision="float32"), results)
    originals = images.to_tensor(images.decode("a.png"))
    (back,) = DDIMInversion(unclip.recipe, "6", "float32").reconstruct(originals[None], ["not read"])
    assert results.reported[0]["psnr"] == pytest.approx(images.psnr(originals, back), abs=0.3)


def test_glide_is_conditioned_on_the_captions(glide):
    inversion, originals = DDIMInversion(glide.decoder, "4", "float32"), random_images(1)
    one, other = (
        inversion.reconstruct(originals, [text], iterations=0)
        for text in ("a circle", "a green star on a pink background")
    )
    assert (one - other).abs().max() > 1e-4


def test_other_systems_and_bad_steps_are_refused(glide):
    with pytest.raises(RecipeError, match="inversion needs diffusion"):
        DDIMInversion("dalle1", "5")
    with pytest.raises(RecipeError, match="steps 'x'"):
        DDIMInversion(glide.decoder, "x")
