import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli import checkpoint, images
from dalle_cli.exits import DONE, Failure
from dalle_cli.generate.interpolate import interpolate as run_interpolate
from dalle_cli.generate.latent_editor import LatentOptions
from dalle_cli.generate.metadata import read
from dalle_cli.generate.outputs import Collected
from dalle_cli.images import BadImage
from dalle_cli.systems.unclip import UnCLIP
from tests.fixtures.miniatures import noise


@pytest.fixture
def interpolate(unclip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("dog", "cat", "ape")):
        noise(number, 24 + number, 16).save(f"{name}.png")

    def run(*words, frames=3, noise=None, paths=1, gif=None, code=DONE, **job):
        results = Collected()
        job = {"recipe": unclip.recipe, "precision": "float32", "quiet": True, "sampling": {"steps": "2"}, **job}
        assert run_interpolate(words, frames, noise, paths, gif, LatentOptions(**job), results) == code
        return results.reported

    return run


@pytest.fixture
def decoded(monkeypatch):
    """What the decoder was given: embeddings and noises, row by row."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    decode = UnCLIP.decode

    def watched(self, embeddings, texts, noise, *rest, **how):
        seen.extend(zip(embeddings, noise))
        return decode(self, embeddings, texts, noise, *rest, **how)

    monkeypatch.setattr(UnCLIP, "decode", watched)
    return seen


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def base(name):
    """The middle square of an image at the decoder's size."""
    return np.asarray(images.square(images.decode(name), 8)).astype(int)


def test_path_follows_the_great_circle(interpolate, decoded, unclip):
    results = interpolate("dog.png", "cat.png", frames=5, sheet="s.png", gif="path.gif", recipe=unclip.recipe)
    assert [one["t"] for one in results] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert {(one["from"], one["to"]) for one in results} == {("dog.png", "cat.png")}
    assert [one["image"] for one in results] == ["dog.png"] * 2 + ["cat.png"] * 3
    z = torch.stack([one for one, _ in decoded])
    unit = torch.nn.functional.normalize(z, dim=1)
    plane, _ = torch.linalg.qr(unit[[0, -1]].T)
    torch.testing.assert_close(unit @ plane @ plane.T, unit, atol=1e-5, rtol=0)
    angles = (unit[:-1] * unit[1:]).sum(dim=1).clamp(-1, 1).acos()
    torch.testing.assert_close(angles, angles.mean().expand(4), atol=1e-3, rtol=0)
    assert Image.open("s.png").size[0] == 5 * 136 + 8
    film = Image.open("path.gif")
    assert (film.n_frames, film.size, film.info["loop"]) == (8, (16, 16), 0)
    assert read(results[2]["path"])["dalle"]["options"]["noise"] == "slerp"


@pytest.mark.slow
def test_endpoints_reconstruct_the_images(interpolate, unclip, tmp_path):
    recipe = tmp_path / "plain.yaml"  # without an upsampler
    recipe.write_text(f"system: {{type: unclip}}\nparts: {{decoder: {unclip.decoder}, clip: {unclip.clip}}}\n")
    results = interpolate("dog.png", "cat.png", recipe=str(recipe), sampling={"steps": "16"})
    for one, name in ((results[0], "dog.png"), (results[2], "cat.png")):
        error = np.sqrt(np.mean((pixels(one["path"]) - base(name)) ** 2))
        assert error < 255 / 10 ** (25 / 20)
    assert np.abs(pixels(results[1]["path"]) - base("dog.png")).max() > 20


@pytest.mark.slow
def test_fixed_noise_is_one_per_path(interpolate, decoded):
    results = interpolate("dog.png", "cat.png", "ape.png", noise="fixed", paths=2, sheet="s.png", gif="path.gif")
    assert [(one["sample_index"], one["t"]) for one in results] == [
        (path, t) for path in (0, 1) for t in (0.0, 0.5, 0.0, 0.5, 1.0)
    ]
    assert [one["to"] for one in results[:5]] == ["cat.png"] * 2 + ["ape.png"] * 3
    x = torch.stack([one for _, one in decoded]).unflatten(0, (2, 5))
    assert (x == x[:, :1]).all()
    assert (x[0, 0] - x[1, 0]).abs().max() > 0.1
    assert Image.open("path.gif").n_frames == 8
    alone = interpolate("dog.png", "cat.png", "ape.png", noise="fixed", out="b", batch_size=1)
    for one, other in zip(alone, results):
        assert np.abs(pixels(one["path"]) - pixels(other["path"])).max() <= 2


def test_texts_are_endpoints_too(interpolate, decoded):
    results = interpolate("dog.png", "a snowman", '{"prompt": "a red circle", "mood": "glad"}')
    assert [one["prompt"] for one in results] == [None, "a snowman", "a snowman", "a red circle", "a red circle"]
    assert (results[1]["from"], results[1]["to"], results[4]["mood"]) == ("dog.png", "a snowman", "glad")
    assert not torch.equal(decoded[0][1], decoded[2][1])  # the image's own noise, then a random one
    assert torch.equal(decoded[2][1], decoded[4][1])
    decoded.clear()
    interpolate("a snowman", "dog.png", paths=2, noise="slerp", out="b")
    for part in (0, 1):
        assert (decoded[0][part] - decoded[3][part]).abs().max() > 1e-5  # two paths from a text
        torch.testing.assert_close(decoded[2][part], decoded[5][part])  # to the image


def test_lines_are_endpoints_too(interpolate, monkeypatch):
    lines = [
        {"path": "dog.png", "prompt": "a dog", "seed": 3, "sample_index": 1, "score": 0.4},
        {"prompt": "a wolf", "error": "was not generated"},
        {"path": "cat.png", "prompt": None},
    ]
    text = "\n".join([*map(json.dumps, lines), "ape.png"]).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    results = interpolate("-", frames=2, code=4)
    assert [(one.get("from"), one.get("to"), one.get("prompt")) for one in results] == [
        ("dog.png", "cat.png", "a dog"), ("cat.png", "ape.png", None), ("cat.png", "ape.png", None),
        (None, None, "a wolf"),
    ]  # fmt: skip
    assert "score" not in results[0]


def test_invalid_arguments_are_refused_before_loading(interpolate, monkeypatch):
    monkeypatch.setattr(checkpoint, "load", None)
    with pytest.raises(Failure, match="needs at least two endpoints, images or texts; got 1"):
        interpolate("dog.png")
    with pytest.raises(Failure, match="--paths 2: images have one noise each"):
        interpolate("dog.png", "cat.png", noise="slerp", paths=2)
    with pytest.raises(Failure, match=r"--gif path\.png"):
        interpolate("dog.png", "cat.png", gif="path.png")
    with pytest.raises(ValueError, match=r"no file 'gone\.png'"):
        interpolate("dog.png", "gone.png")
    Path("text.png").touch()
    with pytest.raises(BadImage, match=r"text\.png: not an image"):
        interpolate("dog.png", "text.png")
    Path("path.gif").touch()
    with pytest.raises(Failure, match="already exists"):
        interpolate("dog.png", "cat.png", gif="path.gif")
