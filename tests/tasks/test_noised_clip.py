import math

import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models import models
from dalle_cli.models.dvae import DVAE
from dalle_cli.tasks.noised_clip import NoisedCLIPTask
from dalle_cli.tasks.noising import add_noise
from dalle_cli.text.learn import learn

from .conftest import CAPTIONS, SIZE, samples

NODE = {
    "type": "noised-clip", "embed_dim": 8,
    "image": {"type": "noised-vit", "size": SIZE, "patch_size": 4, "width": 16, "depth": 1, "heads": 2, "steps": 100},
    "text": {"type": "noised-clip-text", "vocab_size": 522, "context_length": 12, "width": 16, "depth": 1, "heads": 2},
}  # fmt: skip


def task(node=NODE, **options):
    torch.manual_seed(0)
    return NoisedCLIPTask(models.build(node), learn(CAPTIONS * 2, 522, "clip"), **options).eval()


@pytest.mark.parametrize("shift", [1.0, 0.2])
def test_loss_is_clip_loss_on_noisy_images(shift):
    one = task(timestep_shift=shift)
    batch = one.collate(samples(2))
    loss, logs = one(batch, 0)
    x, t, _ = add_noise(one.process, batch["image"], batch["seed"], shift)
    assert len(one.process) == 100
    image = F.normalize(one.model.encode_image(x, t), dim=-1)
    scores = one.model.logit_scale.exp() * image @ one.embed_texts(CAPTIONS).T
    truth = torch.arange(2)
    torch.testing.assert_close(loss, (F.cross_entropy(scores, truth) + F.cross_entropy(scores.T, truth)) / 2)
    assert logs["scale"].item() == pytest.approx(1 / 0.07, rel=1e-4)
    torch.testing.assert_close(one.score(one.embed_texts(CAPTIONS), x, t), scores.diagonal())


def test_only_learned_scale_is_clamped():
    one = task(max_logit_scale=20.0)
    with torch.no_grad():
        one.model.logit_scale.fill_(9.0)
    one.after_step()
    assert one.model.logit_scale.item() == pytest.approx(math.log(20))
    given = task(NODE | {"fixed_logit_scale": 100.0}, max_logit_scale=20.0)
    given.after_step()
    assert given.model.logit_scale.item() == pytest.approx(math.log(100))


def test_too_large_vocabulary_is_refused():
    node = NODE | {"text": NODE["text"] | {"vocab_size": 521}}
    with pytest.raises(ValueError, match=r"model\.text\.vocab_size: 521 is less than the tokenizer's 522"):
        task(node)


def test_reconstruction_prob():
    dvae = DVAE(16, n_hid=8, n_init=8, groups=3, num_res_blocks=1).eval()
    batch = task().collate(samples(64))

    def shown(share):
        return task(reconstruction_prob=share, dvae=dvae)._reconstruct_some(batch)

    again = dvae.decode(dvae.encode(batch["image"]))
    assert torch.equal(shown(0.0), batch["image"])
    assert torch.equal(shown(1.0), again)
    through = [torch.equal(one, other) for one, other in zip(shown(0.5), again)]
    assert 16 < sum(through) < 48
    assert task(reconstruction_prob=1.0, dvae=dvae)(batch, 0)[0] != task()(batch, 0)[0]


def test_invalid_options_are_refused():
    with pytest.raises(ValueError, match=r"task\.timestep_shift: 0 is not over 0"):
        task(timestep_shift=0)
    with pytest.raises(ValueError, match=r"task\.reconstruction_prob: 2 is not in \[0, 1\]"):
        task(reconstruction_prob=2)
    with pytest.raises(ValueError, match=r"task\.reconstruction_prob: 0\.5 of the pictures need frozen\.dvae"):
        task(reconstruction_prob=0.5)
