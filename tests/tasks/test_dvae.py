import math
from itertools import repeat

import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models.dvae import DVAE, map_pixels
from dalle_cli.tasks.dvae import DVAETask, logit_laplace

VOCAB = 8


def task(**options):
    torch.manual_seed(0)
    return DVAETask(DVAE(VOCAB, n_hid=8, n_init=8, groups=2, num_res_blocks=1, gain=0.5), **options)


def batch(count=4, size=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.rand(count, 3, size, size, generator=generator) * 2 - 1,
        "seed": torch.randint(2**40, (count,), generator=generator),
    }


def test_logit_laplace_density():
    """It integrates to 1 over pixels, and is the Laplace density of the logit times the logit's slope."""
    pixels = torch.linspace(1e-4, 1 - 1e-4, 20_001, dtype=torch.float64)
    mean, log_scale = torch.tensor(0.3, dtype=torch.float64), torch.tensor(-0.5, dtype=torch.float64)
    density = logit_laplace(pixels, mean, log_scale).exp()
    assert torch.trapezoid(density, pixels) == pytest.approx(1, abs=2e-3)
    laplace = torch.distributions.Laplace(mean, log_scale.exp()).log_prob(torch.logit(pixels))
    torch.testing.assert_close(density.log(), laplace - torch.log(pixels * (1 - pixels)))


def test_min_log_scale_is_a_floor():
    pixels, mean = torch.tensor([0.5]), torch.tensor([0.0])
    low = torch.tensor([-9.0])
    assert logit_laplace(pixels, mean, low) > logit_laplace(pixels, mean, low, floor=-0.7)
    assert logit_laplace(pixels, mean, low, -0.7) == logit_laplace(pixels, mean, torch.tensor([-0.7]))


def test_loss_is_the_bound_per_pixel_value():
    """At a vanishing temperature the relaxed codes are hard; the divergence is that of the codes from even ones."""
    one = task(kl_weight=6.6, kl_anneal_steps=0, temperature=1e-4, temperature_steps=0)
    given = batch()
    loss, logs = one(given, step=10)
    log_q = F.log_softmax(one.model.encode_logits(given["image"]), dim=1)
    divergence = (log_q.exp() * (log_q + math.log(VOCAB))).sum(1).mean()
    assert logs["divergence"].item() == pytest.approx(divergence.item(), rel=1e-5)
    expected = logs["likelihood"] + 6.6 / (3 * 2**2) * divergence
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_noise_depends_only_on_the_sample():
    one = task(temperature=1.0)
    given = batch(4)
    losses = [one({key: value[i : i + 1] for key, value in given.items()}, 0)[0] for i in range(4)]
    torch.testing.assert_close(one(given, 0)[0], torch.stack(losses).mean())
    assert one(given | {"seed": given["seed"] + 1}, 0)[0] != one(given, 0)[0]


def test_schedules_follow_a_cosine():
    one = task(kl_weight=6.0, kl_anneal_steps=100, temperature=0.5, temperature_steps=100)
    temperatures = [one(batch(), step)[1]["temperature"].item() for step in (0, 50, 100, 900)]
    assert temperatures == pytest.approx([1, 0.75, 0.5, 0.5])
    losses = [one(batch(), step) for step in (0, 100)]
    assert losses[0][0] == losses[0][1]["likelihood"]
    assert losses[1][0] > losses[1][1]["likelihood"]


def test_patch_codebook_starts_from_data():
    torch.manual_seed(0)
    one = DVAETask(DVAE(VOCAB, n_hid=8, n_init=8, groups=2, num_res_blocks=1, patches=True), train_encoder=False)
    given = batch(16)
    before = one(given, 0)[1]
    one.prepare(repeat(given))
    after = one(given, 0)[1]
    assert after["psnr"] > before["psnr"] + 1
    assert after["perplexity"] > before["perplexity"]


def test_too_few_patches_are_refused():
    one = DVAETask(DVAE(VOCAB, n_hid=8, n_init=8, groups=2, num_res_blocks=1, patches=True))
    with pytest.raises(
        ValueError, match=r"model\.patches: 1 different points make no 8 clusters; set model\.vocab_size lower"
    ):
        one.prepare(repeat({"image": torch.zeros(64, 3, 8, 8)}))


def test_frozen_encoder_uses_hard_tokens():
    one = task(train_encoder=False)
    given = batch()
    loss, logs = one(given, 0)
    loss.backward()
    assert all(parameter.grad is None for parameter in one.model.encoder.parameters())
    assert all(parameter.grad is not None for parameter in one.model.decoder.parameters())
    weights = F.one_hot(one.model.encode(given["image"]), VOCAB).permute(0, 3, 1, 2).float()
    mean, scale = one.model.decode_stats(weights).chunk(2, dim=1)
    torch.testing.assert_close(loss, -logit_laplace(map_pixels(given["image"]), mean, scale).mean())
    assert logs["perplexity"] <= VOCAB


def test_usage_penalty():
    one = task(usage_penalty=1.0)
    with torch.no_grad():
        one.model.encoder.blocks.output.conv.b[0] = 50.0  # all places take code 0
    plain = task()
    plain.model.load_state_dict(one.model.state_dict())
    extra = one(batch(), 0)[0] - plain(batch(), 0)[0]
    assert extra.item() == pytest.approx((VOCAB - 1) / VOCAB, abs=1e-3)


def test_logged_psnr_and_perplexity():
    one = task(temperature=1e-4, temperature_steps=0)
    given = batch()
    logs = one(given, 5)[1]
    codes = one.model.encode(given["image"])
    share = torch.bincount(codes.flatten(), minlength=VOCAB) / codes.numel()
    assert logs["perplexity"].item() == pytest.approx(torch.special.entr(share).sum().exp().item(), rel=1e-5)


def test_preview_layout():
    one = task().eval()
    given = batch(3)
    with torch.no_grad():
        pictures, captions, columns = one.preview(given)
    assert (len(pictures), captions, columns) == (6, None, 3)
    assert torch.equal(pictures[1], given["image"][1])
    torch.testing.assert_close(pictures[4], one.model.decode(one.model.encode(given["image"]))[1])


def test_zero_temperature_is_refused():
    with pytest.raises(ValueError, match=r"task\.temperature: 0 is not positive"):
        task(temperature=0)
