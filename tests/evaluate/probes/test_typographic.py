from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli import evaluate
from dalle_cli.evaluate.generated import Generation
from dalle_cli.evaluate.probes.typographic import Labels, paste_label
from dalle_cli.exits import DONE, PARTIAL, Failure
from tests.cli.conftest import one_line
from tests.fixtures.miniatures import noise

LABELS = ["a red circle", "a blue square", "a green star"]


@pytest.mark.parametrize("size", [(64, 64), (200, 120), (40, 48)])
@pytest.mark.parametrize("word", ["iPod", "I", "a very long word indeed"])
def test_label_covers_a_rectangle(size, word):
    before = Image.new("RGB", size, "red")
    page = np.asarray(paste_label(before, word)).astype(int)
    changed = (page != (255, 0, 0)).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()  # a rectangle
    assert 0.02 < changed.mean() < 0.45
    assert rows.min() > 0.4 * size[1]
    assert (page[changed].sum(axis=1) < 400).any()  # ink
    assert (page[changed] == 255).all(axis=1).mean() > 0.2  # paper
    assert np.asarray(before).tolist() == np.asarray(Image.new("RGB", size, "red")).tolist()


def test_invisible_word_is_refused():
    with pytest.raises(Failure, match="has no visible characters"):
        paste_label(Image.new("RGB", (8, 8)), "")


def test_probabilities_are_a_softmax_of_cosines():
    labels = Labels(["a", "b"], torch.tensor([[2.0, 0.0], [0.0, 1.0]]), 10.0, 0)
    assert labels.probabilities(torch.tensor([3.0, 3.0])).tolist() == pytest.approx([0.5, 0.5])
    probabilities = labels.probabilities(torch.tensor([0.8, 0.6]))
    assert probabilities.tolist() == pytest.approx(torch.tensor([8.0, 6.0]).softmax(0).tolist(), abs=1e-5)


@pytest.fixture
def attack(unclip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise(1, 60, 40).save("dog.png")

    def run(image, word="star", labels=LABELS, num_images=2, code=DONE, out="out"):
        options = Generation(steps="3", precision="float32", quiet=True, out=out)
        result = evaluate.probe_typographic(
            image, word, labels, num_images=num_images, recipe=unclip.recipe, options=options
        )
        assert result.exit_code == code
        return result

    return run


def test_before_after_and_variations(attack):
    result = attack("dog.png")
    found = result.images
    assert [one["stage"] for one in found] == ["before", "after", "variation", "variation"]
    for one in found:
        assert one["label"] in [*LABELS, "a star"]
        assert max(one["object"], one["word"]) <= one["probability"] <= 1
    assert found[0]["label"] == "a star" or found[0]["object"] == found[0]["probability"]
    pages = [np.asarray(Image.open(one["path"])).astype(int) for one in found]
    assert {page.shape for page in pages} == {(16, 16, 3)}
    assert np.abs(pages[0] - pages[1])[:6].max() < np.abs(pages[0] - pages[1])[6:].max()
    assert np.abs(pages[2] - pages[3]).max() > 2
    assert (found[0]["probability"], found[0]["word"]) != (found[1]["probability"], found[1]["word"])
    assert [len(row) for row in result.rows] == [4]
    assert len(attack("dog.png", num_images=0, out="b").images) == 2


def test_existing_label_of_the_word_is_used(attack):
    found = attack("dog.png", word="red circle", num_images=0).images
    assert {one["label"] for one in found} <= set(LABELS)


def test_unusable_words_and_labels_are_refused(attack):
    with pytest.raises(Failure, match="the word is the only label"):
        attack("dog.png", word="star", labels=["a star"])
    with pytest.raises(Failure, match="WORD of 41 characters"):
        attack("dog.png", word="x" * 41)
    with pytest.raises(Failure, match="has no visible characters"):
        attack("dog.png", word="  ")


def test_unreadable_images_are_reported(attack):
    Path("images").mkdir()
    Path("dog.png").rename("images/dog.png")
    Path("images/text.png").touch()
    found = attack("images", code=PARTIAL).images
    assert [one.get("error") for one in found] == [None] * 4 + ["images/text.png: not an image"] * 4


def test_command_labels_each_stage(probe, unclip):
    words = ("typographic", "dog.png", "--recipe", unclip.recipe)
    lines = probe(*words, "star", "-n", 1, "--sheet", "s.png").results
    assert [one["stage"] for one in lines] == ["before", "after", "variation"]
    assert all(one["label"].startswith("a") for one in lines)
    assert Image.open("s.png").size[0] == 3 * 136 + 8
    two = probe(*words, "iPod", "-n", 0, "--label", "an apple", "--out", "b").results
    assert {one["label"] for one in two} <= {"an apple", "an iPod"}
    assert two[0]["object"] + two[0]["word"] == pytest.approx(1, abs=1e-3)
    ended = probe(*words, " ", code=2)
    assert one_line(ended.err)
    assert "has no visible characters" in ended.err
