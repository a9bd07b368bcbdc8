import math

import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models import models
from dalle_cli.tasks.clip import CLIPTask
from dalle_cli.text.learn import learn

CAPTIONS = ["a red circle", "a blue square on a green background", "a star"]


def task(vocab_size=522, **options):
    torch.manual_seed(0)
    image = {"type": "vit", "size": 16, "patch_size": 8, "width": 16, "depth": 1, "heads": 2}
    text = {"type": "clip-text", "vocab_size": vocab_size, "context_length": 12, "width": 16, "depth": 1, "heads": 2}
    model = models.build({"type": "clip", "embed_dim": 8, "image": image, "text": text})
    return CLIPTask(model, learn(CAPTIONS * 2, 522, "clip"), **options)


def batch(one):
    pictures = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return one.collate(
        [{"image": picture, "text": text, "seed": 0, "key": text} for picture, text in zip(pictures, CAPTIONS)]
    )


def test_loss_is_symmetric():
    one = task()
    given = batch(one)
    loss, logs = one(given, 0)
    scores = one.model.logit_scale.exp() * one.embed_images(given["image"]) @ one.embed_texts(CAPTIONS).T
    truth = torch.arange(3)
    expected = (F.cross_entropy(scores, truth) + F.cross_entropy(scores.T, truth)) / 2
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert logs["accuracy"] == (scores.argmax(1) == truth).float().mean()
    assert logs["scale"].item() == pytest.approx(1 / 0.07, rel=1e-4)


def test_unit_features_are_independent():
    one = task().eval()
    features = one.embed_texts(CAPTIONS)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(one.embed_texts(CAPTIONS[:1]), features[:1], rtol=1e-5, atol=1e-6)


def test_batch_is_cut_to_longest_caption():
    one = task()
    assert batch(one)["ids"].shape[1] == 12  # the context, to which longer ones are cut
    short = one.collate(
        [{"image": torch.zeros(3, 16, 16), "text": text, "seed": 0, "key": ""} for text in ("a", "star")]
    )
    assert short["ids"].shape[1] == max(len(one.tokenizer.encode(text)) for text in ("a", "star")) + 2 < 12


def test_scale_is_clamped_and_can_fall():
    one = task(max_logit_scale=50.0)
    with torch.no_grad():
        one.model.logit_scale.fill_(9.0)
    one.after_step()
    assert one.model.logit_scale.item() == pytest.approx(math.log(50))
    one(batch(one), 0)[0].backward()
    assert one.model.logit_scale.grad.abs() > 0


def test_too_large_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"model\.text\.vocab_size: 521 is less than the tokenizer's 522"):
        task(vocab_size=521)
