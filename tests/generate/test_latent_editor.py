from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli import images
from dalle_cli.generate import latent_editor as module
from dalle_cli.generate.latent_editor import DecodeRequest, LatentEditor, LatentOptions, cosine
from dalle_cli.generate.requests import GenerationRequest, PlannedImage
from dalle_cli.registry import RecipeError
from tests.fixtures.miniatures import noise


@pytest.fixture
def editor(unclip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, (width, height) in enumerate(((20, 12), (40, 40), (9, 30))):
        noise(number, width, height).save(f"{number}.png")
    return LatentEditor("vary", LatentOptions(unclip.recipe, batch_size=2, quiet=True, precision="float32"))


def run(editor, requests, results=None):
    code = editor.run(
        [request.item for request in requests], lambda todo: [s for s in requests if s.item in todo], {}, results
    )
    return code, editor.results.reported


@pytest.fixture(autouse=True)
def collected(monkeypatch):
    monkeypatch.setattr(module, "Results", lambda *_: module.Collected())


def test_latents_do_not_depend_on_the_batch(editor):
    run(editor, [DecodeRequest(PlannedImage(0, 0, 0, GenerationRequest()), torch.zeros(8))])  # loads the system
    names = ["0.png", "1.png", "gone.png", "2.png", "1.png"]
    found = list(editor.encode_files(names))
    assert isinstance(found[2], images.BadImage)
    assert "gone.png: missing file" in str(found[2])
    for name, one in zip(names, found):
        if name == "gone.png":
            continue
        (alone,) = editor.encode_files([name])
        torch.testing.assert_close(one.x, alone.x, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one.z, alone.z, atol=1e-5, rtol=1e-4)
        assert torch.equal(one.image, images.to_tensor(images.square(images.decode(name), 8)))
    assert next(editor.encode_files(["0.png"], invert=False)).x is None
    assert (found[0].z - found[1].z).abs().max() > 1e-3


def test_padded_images_are_encoded_whole(editor):
    run(editor, [DecodeRequest(PlannedImage(0, 0, 0, GenerationRequest()), torch.zeros(8))])  # loads the system
    wide = noise(3, 20, 10)
    padded = Image.new("RGB", (20, 20), "white")
    padded.paste(wide, (0, 5))
    cropped = editor.encode(wide)
    editor.options = replace(editor.options, crop="pad")
    assert torch.equal(editor.encode(wide).image, images.to_tensor(images.square(padded, 8)))
    assert torch.equal(editor.encode(wide).z, editor.encode(padded).z)
    assert not torch.equal(editor.encode(wide).image, cropped.image)


def test_requests_are_batched_by_kind_and_reported_in_order(editor, monkeypatch):
    z = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    requests = [
        DecodeRequest(PlannedImage(0, 0, 0, GenerationRequest("a")), z[0]),
        DecodeRequest(PlannedImage(1, 0, 1, GenerationRequest("a")), z[1], eta=0.5),
        DecodeRequest(PlannedImage(2, 0, 2, GenerationRequest("a")), text="a star"),
        DecodeRequest(PlannedImage(3, 0, 3, GenerationRequest("a")), error="no good"),
        DecodeRequest(
            PlannedImage(4, 0, 4, GenerationRequest("a")),
            z[4],
            details={"mark": 4},
            measure=lambda own: {"one": cosine(own, own)},
        ),
        DecodeRequest(PlannedImage(5, 0, 5, GenerationRequest("a")), z[5], image=Image.new("RGB", (16, 16), "red")),
        DecodeRequest(
            PlannedImage(6, 0, 6, GenerationRequest("a")), z[0], torch.zeros(3, 8, 8), original=torch.zeros(3, 8, 8)
        ),
    ]
    code, found = run(editor, requests)
    assert code is None
    assert [one["index"] for one in found] == [0, 1, 2, 3, 4, 5, 6]
    assert found[3]["error"] == "no good"
    assert (found[4]["mark"], found[4]["one"]) == (4, 1.0)
    assert images.decode(found[5]["path"]).getpixel((3, 3)) == (255, 0, 0)
    assert 0 < found[6]["psnr"] < 60
    pixels = {one["index"]: np.asarray(images.decode(one["path"])).astype(int) for one in found if "path" in one}
    assert {page.shape for page in pixels.values()} == {(16, 16, 3)}
    for request in (requests[0], requests[1], requests[2]):  # alone, in a run of its own
        other = LatentEditor(
            "vary", LatentOptions(editor.options.recipe, out="b", quiet=True, precision="float32", overwrite=True)
        )
        _, (alone,) = run(other, [request])
        assert np.abs(np.asarray(images.decode(alone["path"])).astype(int) - pixels[request.item.index]).max() <= 1
    assert np.abs(pixels[0] - pixels[1]).max() > 3
    assert np.abs(pixels[0] - pixels[2]).max() > 3


def test_inversion_is_unguided_by_default(unclip):
    assert LatentEditor("vary", LatentOptions(unclip.recipe)).sampling.guidance_scale == 1.0
    assert (
        LatentEditor(
            "vary", LatentOptions(unclip.recipe, {"guidance_scale": 2.0, "steps": None})
        ).sampling.guidance_scale
        == 2.0
    )
    assert LatentEditor("probe prior", LatentOptions(unclip.recipe), inverts=False).sampling.guidance_scale == 3.0
    assert LatentEditor("vary", LatentOptions(unclip.recipe)).sampling.sampler == "ddim"
    with pytest.raises(RecipeError, match="eta 2"):
        LatentEditor("vary", LatentOptions(unclip.recipe)).check_options(eta=2.0)


def test_systems_without_latents_are_refused(glide, tiny):
    for recipe in (glide.recipe, tiny.recipe):
        with pytest.raises(RecipeError, match="`vary` needs one of type unclip"):
            LatentEditor("vary", LatentOptions(recipe))


def test_cosine():
    assert cosine(torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])) == 0.6


def test_a_dry_run_writes_nothing(unclip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    editor = LatentEditor("vary", LatentOptions(unclip.recipe, dry_run=True, sheet="s.png"))
    assert editor.run([PlannedImage(0, 0, 0, GenerationRequest())], lambda todo: 1 / 0, {}) == 0
    assert not list(tmp_path.iterdir())
    printed = capsys.readouterr().err
    assert "decoder" in printed
    assert "1 files in out" in printed
