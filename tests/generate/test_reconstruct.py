import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli import checkpoint, images
from dalle_cli.exits import DONE, PARTIAL, USAGE, WOULD_OVERWRITE, Failure
from dalle_cli.generate import reconstruct as module
from dalle_cli.generate.image_requests import expand_folders
from dalle_cli.generate.metadata import read
from dalle_cli.generate.options import GenerationOptions
from tests.fixtures.miniatures import SIZE, noise


@pytest.fixture
def folder(tmp_path):
    """Three images, one of them larger, in a folder."""
    inside = tmp_path / "in" / "deeper"
    inside.mkdir(parents=True)
    noise(0).save(tmp_path / "in" / "b.png")
    noise(1).resize((3 * SIZE, 2 * SIZE), Image.Resampling.NEAREST).save(tmp_path / "in" / "a.PNG")
    noise(2).save(inside / "c.webp", lossless=True)
    (inside / "notes.txt").write_text("not an image")
    return tmp_path / "in"


@pytest.fixture
def reconstruct(tiny, tmp_path, capsys):
    """Run it; the exit code and the results."""

    def run(*paths, **options):
        words = [str(path) for path in paths]
        model, size = options.pop("model", tiny.dvae), options.pop("size", None)
        how = {"out": str(tmp_path / "out"), "precision": "float32", "quiet": True, **options}
        code = module.reconstruct(words, model, size, GenerationOptions(**how))
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_psnr_and_tokens_match_a_plain_computation(reconstruct, folder, tiny):
    code, results = reconstruct(folder)
    assert code == DONE
    assert [result["image"] for result in results] == expand_folders([str(folder)])
    dvae = checkpoint.load(tiny.dvae).model
    for result in results:
        image = Image.open(result["image"]).convert("RGB")
        image = images.center_crop(images.resize(image, SIZE), SIZE)
        with torch.no_grad():
            tokens = dvae.encode(images.to_tensor(image)[None])
            decoded = (dvae.decode(tokens)[0].numpy() + 1) / 2
        error = np.mean((np.asarray(image).transpose(2, 0, 1) / 255 - decoded) ** 2)
        assert result["psnr"] == pytest.approx(-10 * math.log10(error), abs=0.006)
        assert result["unique_tokens"] == tokens.unique().numel() > 1
        pair = np.asarray(Image.open(result["path"])).astype(int)
        assert pair.shape == (2 * SIZE, SIZE, 3)
        assert (pair[:SIZE] == np.asarray(image)).all()  # original above,
        assert np.abs(pair[SIZE:] - 255 * decoded.transpose(1, 2, 0)).max() < 0.51  # reconstruction below
        metadata = read(result["path"])["dalle"]
        assert (metadata["command"], metadata["options"]) == ("reconstruct", {"size": SIZE})
        assert metadata["result"] == {"psnr": result["psnr"], "unique_tokens": result["unique_tokens"]}
    assert len({result["psnr"] for result in results}) == 3


def test_size_is_that_of_training_or_the_given_one(reconstruct, folder, tmp_path):
    _, results = reconstruct(folder / "b.png", size=24)
    assert Image.open(results[0]["path"]).size == (24, 48)
    with pytest.raises(Failure, match="--size 30: give a multiple of 4") as failure:
        reconstruct(folder, size=30, out=tmp_path / "other")
    assert failure.value.code == USAGE


def test_reconstructions_do_not_depend_on_the_batch(reconstruct, folder, tmp_path, monkeypatch):
    _, together = reconstruct(folder)
    monkeypatch.setattr(module, "BATCH", 2)
    _, parts = reconstruct(folder, out=tmp_path / "other")
    for one, other in zip(together, parts, strict=True):
        assert (one["psnr"], one["unique_tokens"]) == (other["psnr"], other["unique_tokens"])
        difference = np.asarray(Image.open(one["path"])).astype(int) - np.asarray(Image.open(other["path"]))
        assert np.abs(difference).max() <= 1


def test_unreadable_images_become_failed_results(reconstruct, folder):
    (folder / "d.jpg").write_text("not an image")
    code, results = reconstruct(folder, folder / "b.png", '{"prompt": "a cat", "error": "earlier"}')
    assert code == PARTIAL
    errors = {result["index"]: result.get("error") for result in results}
    assert errors == {0: None, 1: None, 2: f"{folder / 'd.jpg'}: not an image", 3: None, 4: None, 5: "earlier"}
    assert all(("path" in result) == ("psnr" in result) == (not result.get("error")) for result in results)


def test_existing_files_are_kept_before_loading(reconstruct, folder, tmp_path):
    _, results = reconstruct(folder / "b.png", folder / "a.PNG", sheet=str(tmp_path / "pairs.png"))
    assert Image.open(tmp_path / "pairs.png").height > 2 * SIZE
    with pytest.raises(Failure) as failure:
        reconstruct(folder / "b.png", model="none")
    assert failure.value.code == WOULD_OVERWRITE
    (tmp_path / "out" / "000001-0-a.png").unlink()
    code, again = reconstruct(folder / "b.png", folder / "a.PNG", skip_existing=True)
    assert (code, again) == (DONE, [{**results[0], "skipped": True}, results[1]])


def test_other_checkpoints_are_refused(reconstruct, folder, tiny):
    with pytest.raises(checkpoint.CheckpointError, match="holds a 'clip', where a 'dvae' or a 'vqgan' is needed"):
        reconstruct(folder, model=tiny.clip)
