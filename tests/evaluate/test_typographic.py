from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli.evaluate.typographic import Labels, labelled, typographic
from dalle_cli.exits import DONE, PARTIAL, Failure
from dalle_cli.generate.latent_editor import Job
from dalle_cli.generate.outputs import Collected
from tests.fixtures.miniatures import noise

LABELS = ["a red circle", "a blue square", "a green star"]


@pytest.mark.parametrize("size", [(64, 64), (200, 120), (40, 48)])
@pytest.mark.parametrize("word", ["iPod", "I", "a very long word indeed"])
def test_a_label_lies_on_the_picture_and_nowhere_else(size, word):
    before = Image.new("RGB", size, "red")
    page = np.asarray(labelled(before, word)).astype(int)
    changed = (page != (255, 0, 0)).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()  # a rectangle
    assert 0.02 < changed.mean() < 0.45
    assert rows.min() > 0.4 * size[1]
    assert (page[changed].sum(axis=1) < 400).any()  # ink
    assert (page[changed] == 255).all(axis=1).mean() > 0.2  # paper
    assert np.asarray(before).tolist() == np.asarray(Image.new("RGB", size, "red")).tolist()


def test_a_word_without_ink_is_refused():
    with pytest.raises(Failure, match="nothing of it can be seen"):
        labelled(Image.new("RGB", (8, 8)), "")


def test_probabilities_are_a_softmax_of_cosines():
    labels = Labels(["a", "b"], torch.tensor([[2.0, 0.0], [0.0, 1.0]]), 10.0)
    assert labels.probabilities(torch.tensor([3.0, 3.0])).tolist() == pytest.approx([0.5, 0.5])
    found = labels.probabilities(torch.tensor([0.8, 0.6]))
    assert found.tolist() == pytest.approx(torch.tensor([8.0, 6.0]).softmax(0).tolist(), abs=1e-5)


@pytest.fixture
def probe(unclip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise(1, 60, 40).save("dog.png")

    def run(*pictures, word="star", labels=LABELS, count=2, code=DONE, **job):
        found = Collected()
        how = Job(unclip.recipe, {"steps": "3"}, precision="float32", quiet=True, **job)
        assert typographic(pictures, word, labels, count, how, found) == code
        return found.reported

    return run


def test_before_after_and_what_is_drawn_of_it(probe):
    found = probe("dog.png", sheet="s.png")
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
    assert Image.open("s.png").size[0] == 4 * 136 + 8
    assert len(probe("dog.png", count=0, out="b")) == 2


def test_the_word_s_own_label_is_known(probe):
    found = probe("dog.png", word="red circle", count=0)
    assert {one["label"] for one in found} <= set(LABELS)


def test_what_cannot_be_meant(probe):
    with pytest.raises(Failure, match="nothing to choose among"):
        probe("dog.png", word="star", labels=["a star"])
    with pytest.raises(Failure, match="WORD of 41 letters"):
        probe("dog.png", word="x" * 41)
    with pytest.raises(Failure, match="nothing of it can be seen"):
        probe("dog.png", word="  ")
    Path("text.png").touch()
    found = probe("dog.png", "text.png", code=PARTIAL, sheet="s.png")
    assert [one.get("error") for one in found] == [None] * 4 + ["text.png: not an image"] * 4
