import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.exits import DONE, PARTIAL, WOULD_OVERWRITE, Failure
from dalle_cli.generate.latent_editor import LatentOptions
from dalle_cli.generate.metadata import read
from dalle_cli.generate.outputs import Collected
from dalle_cli.generate.vary import vary as run_vary
from dalle_cli.registry import RecipeError
from tests.fixtures.miniatures import noise


@pytest.fixture
def vary(unclip, tmp_path, monkeypatch):
    """Vary images of a folder; the results."""
    monkeypatch.chdir(tmp_path)
    noise(1, 24, 16).save("dog.png")
    noise(2, 9, 9).save("cat.png")

    def run(*paths, etas=(0.7,), count=1, code=DONE, **job):
        results = Collected()
        options = {"steps": "2", **job.pop("options", {})}
        job = {"recipe": unclip.recipe, "precision": "float32", "quiet": True, "sampling": options, **job}
        assert run_vary(paths, etas, count, LatentOptions(**job), results) == code
        return results.reported

    return run


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def test_eta_0_reconstructs_and_larger_etas_vary(vary):
    results = vary("dog.png", "cat.png", etas=(0.0, 0.5, 1.0), sheet="sheet.png", sampling={"steps": "16"})
    assert [(one["image"], one["eta"]) for one in results] == [
        (name, eta) for name in ("dog.png", "cat.png") for eta in (0.0, 0.5, 1.0)
    ]
    for row in (results[:3], results[3:]):
        assert row[0]["psnr"] > 25
        assert row[0]["psnr"] > row[1]["psnr"] + 3
        assert row[1]["psnr"] > row[2]["psnr"]
        assert row[0]["similarity"] != row[2]["similarity"]
        assert row[0]["seed"] == row[2]["seed"]
        assert row[0]["sample_index"] == row[2]["sample_index"]
    assert Image.open("sheet.png").size[0] == 4 * 136 + 8
    metadata = read(results[1]["path"])["dalle"]
    assert (metadata["command"], metadata["result"]["eta"], metadata["options"]["etas"]) == (
        "vary",
        0.5,
        [0.0, 0.5, 1.0],
    )
    assert "prior" not in metadata["models"]


@pytest.mark.slow
def test_variations_do_not_depend_on_the_batch(vary):
    together = vary("dog.png", "cat.png", count=2, etas=(0.3, 1.0), out="a")
    alone = vary("dog.png", count=2, etas=(1.0,), out="b", batch_size=1)
    assert len({pixels(one["path"]).tobytes() for one in together}) == 8
    for one, other in zip([one for one in together[:4] if one["eta"] == 1.0], alone):
        assert np.abs(pixels(one["path"]) - pixels(other["path"])).max() <= 2
    other = vary("dog.png", etas=(1.0,), out="c", seed=5)
    assert np.abs(pixels(other[0]["path"]) - pixels(alone[0]["path"])).max() > 2


def test_lines_keep_their_fields_and_bad_ones_fail(vary):
    Path("text.png").touch()
    line = json.dumps(
        {"path": "dog.png", "prompt": "a dog", "seed": 7, "sample_index": 2, "mood": "glad", "score": 0.5}
    )
    results = vary(
        line, "text.png", json.dumps({"prompt": "x", "error": "was not generated"}), code=PARTIAL, sheet="s.png"
    )
    assert (results[0]["prompt"], results[0]["seed"], results[0]["sample_index"], results[0]["mood"]) == (
        "a dog",
        7,
        2,
        "glad",
    )
    assert "score" not in results[0]
    assert results[1]["error"] == "text.png: not an image"
    assert results[2] == {"prompt": "x", "error": "was not generated"}


def test_existing_variations_are_skipped(vary, monkeypatch):
    first = vary("dog.png", count=2)
    with pytest.raises(Failure, match="already exist") as error:
        vary("dog.png", count=2)
    assert error.value.code == WOULD_OVERWRITE
    Path(first[1]["path"]).write_bytes(b"cut short")
    again = vary("dog.png", count=2, skip_existing=True)
    assert [one.get("skipped", False) for one in again] == [True, False]
    assert again[0]["psnr"] == first[0]["psnr"]
    monkeypatch.setattr(checkpoint, "load", None)
    assert all(one["skipped"] for one in vary("dog.png", count=2, skip_existing=True, sheet="s.png"))
    assert Image.open("s.png")


def test_invalid_arguments_are_refused_before_loading(vary, monkeypatch):
    monkeypatch.setattr(checkpoint, "load", None)
    with pytest.raises(RecipeError, match=r"eta 1\.5 is not between 0 and 1"):
        vary("dog.png", etas=(0.5, 1.5))
    with pytest.raises(RecipeError, match="steps 'x'"):
        vary("dog.png", sampling={"steps": "x"})
    with pytest.raises(ValueError, match=r"gone\.png"):
        vary("gone.png")
