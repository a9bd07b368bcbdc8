import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from dalle_cli.diffusion.loss import diffusion_loss, log_likelihood, normal_kl, variational_bound
from dalle_cli.diffusion.process import Process
from dalle_cli.diffusion.schedules import cosine, linear

T = torch.tensor([0, 3, 40, 99])


@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
def test_mse_is_of_the_predicted_quantity(predict, x):
    process, eps = Process(linear(100), predict), torch.randn_like(x)
    noised = process.noise(x, T, eps)
    alpha, sigma = process.alpha_bar[T].sqrt().view(4, 1, 1, 1), (1 - process.alpha_bar[T]).sqrt().view(4, 1, 1, 1)
    truth = {"eps": eps, "x0": x, "v": alpha * eps - sigma * x}[predict]
    output = torch.randn_like(x)
    result = diffusion_loss(process, output, x, T, eps)
    torch.testing.assert_close(result.mse, (output - truth).square().mean(dim=(1, 2, 3)))
    assert torch.equal(result.total, result.mse)
    assert result.bound is None
    assert diffusion_loss(process, truth, x, T, eps).mse.max() < 1e-20
    assert noised.isfinite().all()


def test_normal_kl():
    mean, other = torch.randn(5).double(), torch.randn(5).double()
    log_variance, other_log_variance = torch.randn(5).double(), torch.randn(5).double()
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(other, (other_log_variance / 2).exp()))
    torch.testing.assert_close(normal_kl(mean, log_variance, other, other_log_variance), expected)


def test_log_likelihood_of_levels():
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    for mean, deviation in ((0.2, 0.05), (-0.9, 0.3)):
        at = torch.full_like(levels, mean)
        share = log_likelihood(levels, at, torch.full_like(levels, 2 * math.log(deviation))).exp()
        assert share.sum().item() == pytest.approx(1, abs=1e-9)
        edges = Normal(mean, deviation).cdf(levels[:-1] + 1 / 255)
        exact = torch.cat([edges[:1], edges.diff(), 1 - edges[-1:]])
        torch.testing.assert_close(share, exact, rtol=0, atol=2e-3)  # the approximation of the integral
    far = log_likelihood(torch.tensor([1.0]), torch.tensor([-1.0]), torch.tensor([-20.0]))
    assert far.item() == pytest.approx(math.log(1e-12))


def learned(x0):
    """A process with learned range, and an output of it."""
    torch.manual_seed(1)
    return Process(cosine(100), variance="learned-range"), torch.randn(4, 6, 2, 2, dtype=x0.dtype, requires_grad=True)


def test_variational_bound(x):
    x0 = x.clamp(-1, 1)
    process, output = learned(x0)
    noised = process.noise(x0, T, torch.randn_like(x0))
    prediction = process.read(output, noised, T)
    got = variational_bound(process, prediction, x0, noised, T)
    mean, log_variance = process.reverse(prediction, noised, T)
    true_mean, true_log_variance = process.posterior(x0, noised, T)
    true, ours = (Normal(m, (v / 2).exp()) for m, v in ((true_mean, true_log_variance), (mean, log_variance)))
    expected = kl_divergence(true, ours).mean(dim=(1, 2, 3)) / math.log(2)
    torch.testing.assert_close(got[1:], expected[1:])
    nll = -log_likelihood(x0, mean, log_variance)[0].mean() / math.log(2)
    torch.testing.assert_close(got[0], nll)


def test_bound_weight(x):
    x0 = x.clamp(-1, 1)
    process, output = learned(x0)
    result = diffusion_loss(process, output, x0, T, torch.randn_like(x0))
    assert result.bound is not None
    torch.testing.assert_close(result.total, result.mse + 0.1 * result.bound)


def test_bound_teaches_the_variance_alone(x):
    x0 = x.clamp(-1, 1)
    process, output = learned(x0)
    result = diffusion_loss(process, output, x0, T, torch.randn_like(x0))
    assert result.bound is not None
    (gradient,) = torch.autograd.grad(result.bound.sum(), output)
    assert (gradient[:, :3] == 0).all()
    assert (gradient[:, 3:] != 0).flatten(1).any(dim=1).all()
