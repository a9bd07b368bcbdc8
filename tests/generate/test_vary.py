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
from dalle_cli.generate.vary import vary as draw
from dalle_cli.registry import RecipeError
from tests.fixtures.miniatures import noise


@pytest.fixture
def vary(unclip, tmp_path, monkeypatch):
    """Vary pictures of a folder; the results."""
    monkeypatch.chdir(tmp_path)
    noise(1, 24, 16).save("dog.png")
    noise(2, 9, 9).save("cat.png")

    def run(*pictures, etas=(0.7,), count=1, code=DONE, **job):
        results = Collected()
        options = {"steps": "2", **job.pop("options", {})}
        job = {"recipe": unclip.recipe, "precision": "float32", "quiet": True, "sampling": options, **job}
        assert draw(pictures, etas, count, LatentOptions(**job), results) == code
        return results.reported

    return run


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def test_eta_0_is_the_picture_and_more_of_it_something_else(vary):
    found = vary("dog.png", "cat.png", etas=(0.0, 0.5, 1.0), sheet="sheet.png", sampling={"steps": "16"})
    assert [(one["image"], one["eta"]) for one in found] == [
        (name, eta) for name in ("dog.png", "cat.png") for eta in (0.0, 0.5, 1.0)
    ]
    for row in (found[:3], found[3:]):
        assert row[0]["psnr"] > 25
        assert row[0]["psnr"] > row[1]["psnr"] + 3
        assert row[1]["psnr"] > row[2]["psnr"]
        assert row[0]["similarity"] != row[2]["similarity"]
        assert row[0]["seed"] == row[2]["seed"]
        assert row[0]["sample_index"] == row[2]["sample_index"]
    assert Image.open("sheet.png").size[0] == 4 * 136 + 8
    said = read(found[1]["path"])["dalle"]
    assert (said["command"], said["result"]["eta"], said["options"]["etas"]) == ("vary", 0.5, [0.0, 0.5, 1.0])
    assert "prior" not in said["models"]


@pytest.mark.slow
def test_a_variation_is_the_same_whatever_is_drawn_beside_it(vary):
    together = vary("dog.png", "cat.png", count=2, etas=(0.3, 1.0), out="a")
    alone = vary("dog.png", count=2, etas=(1.0,), out="b", batch_size=1)
    assert len({pixels(one["path"]).tobytes() for one in together}) == 8
    for one, other in zip([one for one in together[:4] if one["eta"] == 1.0], alone):
        assert np.abs(pixels(one["path"]) - pixels(other["path"])).max() <= 2
    other = vary("dog.png", etas=(1.0,), out="c", seed=5)
    assert np.abs(pixels(other[0]["path"]) - pixels(alone[0]["path"])).max() > 2


def test_lines_pass_on_and_bad_ones_do_not_hide_the_others(vary):
    Path("text.png").touch()
    line = json.dumps(
        {"path": "dog.png", "prompt": "a dog", "seed": 7, "sample_index": 2, "mood": "glad", "score": 0.5}
    )
    found = vary(line, "text.png", json.dumps({"prompt": "x", "error": "was not drawn"}), code=PARTIAL, sheet="s.png")
    assert (found[0]["prompt"], found[0]["seed"], found[0]["sample_index"], found[0]["mood"]) == ("a dog", 7, 2, "glad")
    assert "score" not in found[0]
    assert found[1]["error"] == "text.png: not an image"
    assert found[2] == {"prompt": "x", "error": "was not drawn"}


def test_what_is_there_is_not_drawn_again(vary, monkeypatch):
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


def test_all_that_can_be_wrong_is_found_before_any_model(vary, monkeypatch):
    monkeypatch.setattr(checkpoint, "load", None)
    with pytest.raises(RecipeError, match=r"eta 1\.5 is not between 0 and 1"):
        vary("dog.png", etas=(0.5, 1.5))
    with pytest.raises(RecipeError, match="steps 'x'"):
        vary("dog.png", sampling={"steps": "x"})
    with pytest.raises(ValueError, match=r"gone\.png"):
        vary("gone.png")
