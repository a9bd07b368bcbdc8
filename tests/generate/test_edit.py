import json
from pathlib import Path

import pytest
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.exits import DONE, PARTIAL
from dalle_cli.generate.edit import edit as run_edit
from dalle_cli.generate.edit import edit_request
from dalle_cli.generate.latent_editor import LatentOptions
from dalle_cli.generate.metadata import read
from dalle_cli.generate.outputs import Collected
from dalle_cli.generate.requests import GenerationRequest, PromptError
from tests.fixtures.miniatures import noise

ENOUGH = {"steps": "16"}  # to reconstruct the image


@pytest.fixture
def edit(unclip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise(1, 24, 16).save("dog.png")

    def run(*paths, to=None, described=None, strengths=(0.3,), code=DONE, **job):
        results = Collected()
        job = {"recipe": unclip.recipe, "precision": "float32", "quiet": True, "sampling": {"steps": "2"}, **job}
        assert run_edit(paths, to, described, strengths, LatentOptions(**job), results) == code
        return results.reported

    return run


def test_strength_moves_away_from_the_image(edit):
    results = edit(
        "dog.png", to="a star", described="a circle", strengths=(0.0, 0.5, 1.0), sheet="s.png", sampling=ENOUGH
    )
    assert [one["strength"] for one in results] == [0.0, 0.5, 1.0]
    assert results[0]["psnr"] > 25
    assert results[0]["psnr"] > max(results[1]["psnr"], results[2]["psnr"]) + 3
    assert {(one["prompt"], one["from"], one["image"]) for one in results} == {("a star", "a circle", "dog.png")}
    assert all(-1 <= one["text_similarity"] <= 1 for one in results)
    assert Image.open("s.png").size[0] == 4 * 136 + 8
    said = read(results[2]["path"])["dalle"]
    assert (said["command"], said["prompt"], said["result"]["strength"]) == ("edit", "a star", 1.0)


def test_baseline_comes_from_option_line_or_file(edit):
    edited = edit("dog.png", to="a star")[0]
    assert "from" not in edited  # no baseline

    def captions(fields, prompt=None, to=None, described=None):
        results = edit_request(GenerationRequest(prompt, None, fields), to, described)
        return results.fields.get("from"), results.prompt

    assert captions({"image": edited["path"]}, to="a circle") == ("a star", "a circle")
    assert captions({"image": "dog.png"}, to="a circle") == (None, "a circle")
    own = {"image": "dog.png", "to": "a star"}
    assert captions(own, "a ring") == ("a ring", "a star")
    assert captions({**own, "from": "a dot"}, "a ring") == ("a dot", "a star")
    assert captions({**own, "from": "a dot"}, "a ring", to="a square", described="a photo") == ("a photo", "a square")
    assert (
        edit_request(GenerationRequest("a ring", None, {**own, "mood": "glad"}), None, None).passthrough["mood"]
        == "glad"
    )
    failed = GenerationRequest(None, None, {"error": "was not generated"})
    assert edit_request(failed, None, None) is failed


def test_bad_images_become_failed_results(edit):
    Path("text.png").touch()
    same = json.dumps({"image": "dog.png", "from": "a star"})
    results = edit("dog.png", "text.png", same, to="a star", described=None, code=PARTIAL, sheet="s.png")
    assert "error" not in results[0]
    assert results[1]["error"] == "text.png: not an image"
    assert "embeds both texts alike" in results[2]["error"]


def test_missing_captions_are_named_before_loading(edit, monkeypatch):
    monkeypatch.setattr(checkpoint, "load", None)
    with pytest.raises(PromptError, match='Give --to "a winter photo"'):
        edit("dog.png")
    with pytest.raises(PromptError, match="edit to what"):
        edit(json.dumps({"image": "dog.png", "to": 3}))
    with pytest.raises(PromptError, match="'from' must be text, not 3"):
        edit(json.dumps({"image": "dog.png", "from": 3}), to="a star")


def test_bad_lines_become_failed_results(edit):
    lines = ({"image": "dog.png", "to": 3}, {"image": "dog.png", "to": "a star"})
    results = edit(*map(json.dumps, lines), code=PARTIAL)
    assert [one.get("prompt") for one in results] == ["a star", None]
    assert "edit to what" in results[1]["error"]
