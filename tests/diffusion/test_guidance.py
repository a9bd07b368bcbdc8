import math

import pytest
import torch
from torch.distributions import Normal

from dalle_cli.diffusion.guidance import (
    classifier_free,
    gradient_guided,
    in_interval,
    keep_known,
    score_gradient,
    threshold,
)
from dalle_cli.diffusion.process import Process
from dalle_cli.diffusion.schedules import linear

from .conftest import DEVIATION, MEAN, best_network

T = torch.tensor([10, 200, 500, 900])


def consistent(prediction, x):
    """Whether data and noise make the sample."""
    torch.testing.assert_close(prediction.alpha * prediction.x0 + prediction.sigma * prediction.eps, x)


def test_classifier_free_extrapolates(x):
    process = Process(linear(1000), variance="learned-range")
    wanted, null = torch.randn(4, 6, 2, 2).double(), torch.randn(4, 6, 2, 2).double()
    seen = []

    def network(x, t, said):
        seen.append((x, t))
        return said

    guided = classifier_free(process.denoiser(network, said=torch.cat([wanted, null])), 3.0)(x, T)
    torch.testing.assert_close(guided.eps, null[:, :3] + 3 * (wanted - null)[:, :3])
    torch.testing.assert_close(guided.variance, (wanted[:, 3:] + 1) / 2)
    consistent(guided, x)
    assert torch.equal(seen[0][0], torch.cat([x, x]))
    assert torch.equal(seen[0][1], torch.cat([T, T]))


@pytest.mark.parametrize(("scale", "name"), [(1.0, "wanted"), (0.0, "null")])
def test_scales_without_guidance(scale, name, x):
    process = Process(linear(1000))
    said = {"wanted": torch.randn_like(x), "null": torch.randn_like(x)}
    network = process.denoiser(lambda x, t: torch.cat([said["wanted"], said["null"]]))
    torch.testing.assert_close(classifier_free(network, scale)(x, T).eps, said[name])


def test_keep_known(denoise, x):
    image = torch.randn_like(x)
    mask = torch.zeros(4, 1, 2, 2)
    mask[..., 0] = 1
    free, kept = denoise(x, T), keep_known(denoise, image, mask)(x, T)
    assert torch.equal(kept.x0[..., 0], image[..., 0])
    assert torch.equal(kept.x0[..., 1], free.x0[..., 1])
    consistent(kept, x)


def test_threshold_clamps(denoise, x):
    free, clamped = denoise(4 * x, T), threshold(denoise, 0.5)(4 * x, T)
    assert free.x0.abs().max() > 0.5
    assert torch.equal(clamped.x0, free.x0.clamp(-0.5, 0.5))
    consistent(clamped, 4 * x)


def test_dynamic_threshold(process):
    row = torch.linspace(-4, 4, 101, dtype=torch.float64)
    x0 = torch.stack([row, row / 8])
    t = torch.tensor([500, 500])
    x = process.noise(x0, t, torch.zeros_like(x0))
    denoise = Process(process.alpha_bar, "x0").denoiser(lambda x, t: x0)
    shrunk = threshold(denoise, percentile=0.8)(x, t).x0
    size = row.abs().sort().values[math.ceil(0.8 * 101) - 1]
    torch.testing.assert_close(shrunk[0], (row / size).clamp(-1, 1))
    torch.testing.assert_close(shrunk[1], row / 8)


def test_score_gradient_works_without_grad(x):
    with torch.no_grad():
        got = score_gradient(lambda x, t: t * x.square().flatten(1).sum(dim=1), scale=0.5)(x, T)
    torch.testing.assert_close(got, T.view(4, 1, 1, 1) * x)
    assert not got.requires_grad


def test_gradient_guidance_gives_the_posterior(process, x):
    """Guided by p(y | x_t), y the data seen through noise, the best denoiser becomes the one that knows y."""
    y, blur = 0.8, 0.7

    def seen(x, t):
        alpha_bar = process.alpha_bar[t].view(4, 1, 1, 1)
        spread = alpha_bar * DEVIATION**2 + 1 - alpha_bar
        mean = MEAN + alpha_bar.sqrt() * DEVIATION**2 / spread * (x - alpha_bar.sqrt() * MEAN)
        variance = DEVIATION**2 * (1 - alpha_bar) / spread  # of the data, given x
        return Normal(mean, (variance + blur**2).sqrt()).log_prob(torch.tensor(y)).flatten(1).sum(dim=1)

    guided = gradient_guided(process.denoiser(best_network(process)), score_gradient(seen))(x, T)
    alpha_bar = process.alpha_bar[T].view(4, 1, 1, 1)
    precision = 1 / DEVIATION**2 + 1 / blur**2 + alpha_bar / (1 - alpha_bar)
    expected = (MEAN / DEVIATION**2 + y / blur**2 + alpha_bar.sqrt() * x / (1 - alpha_bar)) / precision
    torch.testing.assert_close(guided.x0, expected)
    consistent(guided, x)


def test_interval_chooses_by_the_step(process, x):
    inside, outside = (process.denoiser(lambda x, t, c=c: torch.full_like(x, c)) for c in (1.0, 2.0))
    chosen = in_interval(inside, outside, 100, 200)
    for t, expected in ((99, 2), (100, 1), (200, 1), (201, 2)):
        assert (chosen(x, torch.full((4,), t)).eps == expected).all()
