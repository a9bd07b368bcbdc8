import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.evaluate import retrieval, unseen_scenes
from dalle_cli.exits import USAGE, Failure
from dalle_cli.tasks.clip import CLIPTask
from tests.fixtures.miniatures import CLIP_SIZE

NEAR = torch.eye(4)
NEAR[3] = torch.tensor([0.0, 0.0, 0.9, 0.5])  # the last is more like the third than like its own


def test_figures_are_those_of_a_plain_computation(tiny, monkeypatch):
    monkeypatch.setattr(retrieval, "fast_bf16", lambda: False)
    task = checkpoint.load(tiny.clip)
    found = list(unseen_scenes.scenes(20, CLIP_SIZE, "shapes", distinct=True))
    captions = pictures = 0
    for start in range(0, 20, 4):
        group = found[start : start + 4]
        scores = (
            task.embed_images(unseen_scenes.batch([one[2] for one in group]))
            @ task.embed_texts([one[1] for one in group]).T
        )
        captions += sum(scores[i].argmax() == i for i in range(4))
        pictures += sum(scores[:, i].argmax() == i for i in range(4))
    report = retrieval.evaluate(tiny.clip, 23, "shapes", 4)  # whole groups alone
    assert (report.pictures, report.among) == (20, 4)
    assert report.caption_first == pytest.approx(captions / 20)
    assert report.picture_first == pytest.approx(pictures / 20)


@pytest.mark.parametrize(
    ("image", "text", "caption_first", "picture_first"),
    [
        (torch.eye(4), torch.eye(4), 1.0, 1.0),
        (torch.eye(4), torch.eye(4).roll(1, 0), 0.0, 0.0),
        (NEAR, torch.eye(4), 0.75, 1.0),
        (torch.eye(4), NEAR, 1.0, 0.75),
    ],
)
def test_which_way_is_which(tiny, monkeypatch, image, text, caption_first, picture_first):
    monkeypatch.setattr(CLIPTask, "embed_images", lambda self, batch: image)
    monkeypatch.setattr(CLIPTask, "embed_texts", lambda self, texts: text)
    report = retrieval.evaluate(tiny.clip, 8, "shapes", 4)
    assert (report.caption_first, report.picture_first) == (caption_first, picture_first)


def test_too_few_to_choose_from_is_a_usage_error(tiny):
    with pytest.raises(Failure, match="--count 5 is less than --among 100") as failure:
        retrieval.evaluate(tiny.clip, 5, "shapes")
    assert failure.value.code == USAGE
    with pytest.raises(checkpoint.CheckpointError, match="holds a 'dvae', where a 'clip' or a 'noised-clip' is needed"):
        retrieval.evaluate(tiny.dvae, 100, "shapes")
