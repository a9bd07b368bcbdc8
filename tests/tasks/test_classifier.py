import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models.classifier import Classifier
from dalle_cli.tasks.classifier import ClassifierTask
from dalle_cli.tasks.noising import add_noise
from tests.models.test_adm import awake

from .conftest import SIZE, samples

NAMES = ["square", "star", "circle"]


def task(names=NAMES, **options):
    torch.manual_seed(0)
    model = awake(Classifier(SIZE, 3, 32, [1, 1], 1, [2], head_dim=32))
    return ClassifierTask(model, classes=names, **options).eval()


def test_loss_is_cross_entropy_of_noisy_images():
    one = task(schedule="linear", steps=100)
    batch = one.collate(samples())
    assert batch["label"].tolist() == [2, 0, 2, 0]
    loss, logs = one(batch, 0)
    x, t, _ = add_noise(one.process, batch["image"], batch["seed"])
    scores = one.model(x, t)
    torch.testing.assert_close(loss, F.cross_entropy(scores, batch["label"]))
    assert logs["accuracy"] == (scores.argmax(1) == batch["label"]).float().mean()
    assert len(one.process) == 100


def test_score_is_log_probability():
    one = task()
    x, t = torch.randn(3, 3, SIZE, SIZE), torch.tensor([0, 400, 999])
    scores = torch.stack([one.score([name] * 3, x, t) for name in NAMES])
    torch.testing.assert_close(scores.exp().sum(dim=0), torch.ones(3))
    assert torch.equal(one.score(["a star", "a circle", "a square"], x, t), scores[[1, 2, 0], [0, 1, 2]])


def test_captions_may_be_numbers():
    assert task(None).collate(samples(texts=["2", "0"]))["label"].tolist() == [2, 0, 2, 0]
    with pytest.raises(ValueError, match="2 names for a model of 3 classes"):
        task(["a", "b"])
