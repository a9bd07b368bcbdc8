import json
from pathlib import Path

import pytest
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.exits import DONE, PARTIAL
from dalle_cli.generate.edit import edit as draw
from dalle_cli.generate.edit import edit_request
from dalle_cli.generate.latent_editor import LatentOptions
from dalle_cli.generate.metadata import read
from dalle_cli.generate.outputs import Collected
from dalle_cli.generate.requests import GenerationRequest, PromptError
from tests.fixtures.miniatures import noise

ENOUGH = {"steps": "16"}  # to come back to the picture


@pytest.fixture
def edit(unclip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise(1, 24, 16).save("dog.png")

    def run(*pictures, to=None, described=None, strengths=(0.3,), code=DONE, **job):
        results = Collected()
        job = {"recipe": unclip.recipe, "precision": "float32", "quiet": True, "sampling": {"steps": "2"}, **job}
        assert draw(pictures, to, described, strengths, LatentOptions(**job), results) == code
        return results.reported

    return run


def test_the_farther_the_more_it_is_what_was_asked(edit):
    found = edit(
        "dog.png", to="a star", described="a circle", strengths=(0.0, 0.5, 1.0), sheet="s.png", sampling=ENOUGH
    )
    assert [one["strength"] for one in found] == [0.0, 0.5, 1.0]
    assert found[0]["psnr"] > 25
    assert found[0]["psnr"] > max(found[1]["psnr"], found[2]["psnr"]) + 3
    assert {(one["prompt"], one["from"], one["image"]) for one in found} == {("a star", "a circle", "dog.png")}
    assert all(-1 <= one["text_similarity"] <= 1 for one in found)
    assert Image.open("s.png").size[0] == 4 * 136 + 8
    said = read(found[2]["path"])["dalle"]
    assert (said["command"], said["prompt"], said["result"]["strength"]) == ("edit", "a star", 1.0)


def test_what_it_shows_is_said_by_the_option_the_line_or_the_file(edit):
    drawn = edit("dog.png", to="a star")[0]
    assert "from" not in drawn  # no baseline

    def caption_of(fields, prompt=None, to=None, described=None):
        found = edit_request(GenerationRequest(prompt, None, fields), to, described)
        return found.fields.get("from"), found.prompt

    assert caption_of({"image": drawn["path"]}, to="a circle") == ("a star", "a circle")
    assert caption_of({"image": "dog.png"}, to="a circle") == (None, "a circle")
    own = {"image": "dog.png", "to": "a star"}
    assert caption_of(own, "a ring") == ("a ring", "a star")
    assert caption_of({**own, "from": "a dot"}, "a ring") == ("a dot", "a star")
    assert caption_of({**own, "from": "a dot"}, "a ring", to="a square", described="a photo") == ("a photo", "a square")
    assert (
        edit_request(GenerationRequest("a ring", None, {**own, "mood": "glad"}), None, None).passthrough["mood"]
        == "glad"
    )
    failed = GenerationRequest(None, None, {"error": "was not drawn"})
    assert edit_request(failed, None, None) is failed


def test_bad_ones_do_not_hide_the_others(edit):
    Path("text.png").touch()
    same = json.dumps({"image": "dog.png", "from": "a star"})
    found = edit("dog.png", "text.png", same, to="a star", described=None, code=PARTIAL, sheet="s.png")
    assert "error" not in found[0]
    assert found[1]["error"] == "text.png: not an image"
    assert "embeds both texts alike" in found[2]["error"]


def test_what_is_not_said_is_asked_for_before_any_model(edit, monkeypatch):
    monkeypatch.setattr(checkpoint, "load", None)
    with pytest.raises(PromptError, match='Give --to "a winter photo"'):
        edit("dog.png")
    with pytest.raises(PromptError, match="edit to what"):
        edit(json.dumps({"image": "dog.png", "to": 3}))
    with pytest.raises(PromptError, match="'from' must be text, not 3"):
        edit(json.dumps({"image": "dog.png", "from": 3}), to="a star")


def test_a_line_that_means_nothing_does_not_hide_the_others(edit):
    lines = ({"image": "dog.png", "to": 3}, {"image": "dog.png", "to": "a star"})
    found = edit(*map(json.dumps, lines), code=PARTIAL)
    assert [one.get("prompt") for one in found] == ["a star", None]
    assert "edit to what" in found[1]["error"]
