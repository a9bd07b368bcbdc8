import math

import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models import models
from dalle_cli.models.dvae import DVAE
from dalle_cli.tasks.noised_clip import NoisedCLIPTask
from dalle_cli.tasks.noising import noised
from dalle_cli.text.learn import learn

from .conftest import CAPTIONS, SIZE, samples

NODE = {
    "type": "noised-clip", "embed_dim": 8,
    "image": {"type": "noised-vit", "size": SIZE, "patch": 4, "width": 16, "depth": 1, "heads": 2, "steps": 100},
    "text": {"type": "noised-clip-text", "vocab": 522, "context": 12, "width": 16, "depth": 1, "heads": 2},
}  # fmt: skip


def task(node=NODE, **options):
    torch.manual_seed(0)
    return NoisedCLIPTask(models.build(node), learn(CAPTIONS * 2, 522, "clip"), **options).eval()


@pytest.mark.parametrize("shift", [1.0, 0.2])
def test_the_loss_is_clip_s_on_noisy_pictures(shift):
    one = task(shift=shift)
    batch = one.collate(samples(2))
    loss, logs = one(batch, 0)
    x, t, _ = noised(one.process, batch["image"], batch["seed"], shift)
    assert len(one.process) == 100
    image = F.normalize(one.model.encode_image(x, t), dim=-1)
    scores = one.model.logit_scale.exp() * image @ one.embed_texts(CAPTIONS).T
    truth = torch.arange(2)
    torch.testing.assert_close(loss, (F.cross_entropy(scores, truth) + F.cross_entropy(scores.T, truth)) / 2)
    assert logs["scale"].item() == pytest.approx(1 / 0.07, rel=1e-4)
    torch.testing.assert_close(one.score(one.embed_texts(CAPTIONS), x, t), scores.diagonal())


def test_only_a_learned_scale_has_a_ceiling():
    one = task(max_scale=20.0)
    with torch.no_grad():
        one.model.logit_scale.fill_(9.0)
    one.after_step()
    assert one.model.logit_scale.item() == pytest.approx(math.log(20))
    given = task(NODE | {"scale": 100.0}, max_scale=20.0)
    given.after_step()
    assert given.model.logit_scale.item() == pytest.approx(math.log(100))


def test_a_vocabulary_that_is_too_large_is_refused():
    node = NODE | {"text": NODE["text"] | {"vocab": 521}}
    with pytest.raises(ValueError, match=r"model\.text\.vocab: 521 is less than the tokenizer's 522"):
        task(node)


def test_a_share_of_the_pictures_comes_through_the_dvae():
    dvae = DVAE(16, hidden=8, init=8, groups=3, blocks=1).eval()
    batch = task().collate(samples(64))

    def shown(share):
        return task(redrawn=share, dvae=dvae)._redrawn(batch)

    again = dvae.decode(dvae.encode(batch["image"]))
    assert torch.equal(shown(0.0), batch["image"])
    assert torch.equal(shown(1.0), again)
    through = [torch.equal(one, other) for one, other in zip(shown(0.5), again)]
    assert 16 < sum(through) < 48
    assert task(redrawn=1.0, dvae=dvae)(batch, 0)[0] != task()(batch, 0)[0]


def test_a_spoiled_copy_has_squares_of_the_picture_with_the_likest_caption():
    one = task(spoiled=4)
    batch = one.collate(samples(64))
    text = F.normalize(torch.cat([torch.eye(32), torch.eye(32) + 0.01]), dim=-1)  # i's likest is i + 32
    copies = one._spoiled(batch["image"], text, batch["seed"])
    other = batch["image"].roll(32, dims=0)
    squares = [F.unfold(image, 4, stride=4) for image in (copies, batch["image"], other)]  # (B, 48, squares)
    kept, wrong = ((squares[0] == one).all(dim=1) for one in squares[1:])
    assert (kept | wrong).all()
    share = 1 - kept[(squares[1] != squares[2]).any(dim=1).all(dim=1)].float().mean(dim=1)
    assert 0.1 < share.mean() < 0.4
    assert share.max() > share.mean() + 0.1


def test_a_caption_is_told_from_the_spoiled_copy_too():
    one, plain = task(spoiled=4), task()
    batch = one.collate(samples(2))
    text = one.embed_texts(CAPTIONS)
    both = torch.cat([batch["image"], one._spoiled(batch["image"], text, batch["seed"])])
    x, t, _ = noised(one.process, both, batch["seed"].repeat(2), 1.0)
    image = F.normalize(one.model.encode_image(x, t), dim=-1)
    scores = one.model.logit_scale.exp() * text @ image.T  # (2, 4)
    truth = torch.arange(2)
    expected = F.cross_entropy(scores[:, :2].T, truth) / 2
    expected += F.cross_entropy(torch.stack([scores[0, [0, 1, 2]], scores[1, [0, 1, 3]]]), truth) / 2
    torch.testing.assert_close(one(batch, 0)[0], expected)
    assert one(batch, 0)[0] > plain(batch, 0)[0]


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match=r"task\.shift: 0 is not over 0"):
        task(shift=0)
    with pytest.raises(ValueError, match=r"task\.redrawn: 2 is not in \[0, 1\]"):
        task(redrawn=2)
    with pytest.raises(ValueError, match=r"task\.spoiled: squares of 5 px do not fill pictures of 8 px"):
        task(spoiled=5)
    with pytest.raises(ValueError, match=r"task\.redrawn: 0\.5 of the pictures need frozen\.dvae"):
        task(redrawn=0.5)
