import math

import pytest
import torch

from dalle_cli.diffusion.guidance import keep_known, score_gradient, threshold
from dalle_cli.diffusion.process import Process, timesteps_like
from dalle_cli.diffusion.respacing import timesteps
from dalle_cli.diffusion.samplers import SAMPLERS, ddim, ddim_inversion, ddpm, dpm_solver, plms
from dalle_cli.diffusion.schedules import cosine, linear
from dalle_cli.nn.noise import noise_source

from .conftest import DEVIATION, MEAN, best_network, flow

STEPS = timesteps("ddim10")


def wrong(process, sampler, steps, x):
    denoise = process.denoiser(best_network(process))
    return (sampler(process, denoise, x, steps) - flow(process, x, steps[-1])).abs().max().item()


@pytest.mark.parametrize(("sampler", "order", "limit"), [(ddim, 1, 0.1), (plms, 2, 0.005), (dpm_solver, 2, 0.005)])
def test_convergence_order(sampler, order, limit, process, x):
    """Steps of equal lengths in the logarithm of alpha / sigma are halved three times."""
    level = (process.alpha_bar / (1 - process.alpha_bar)).log() / 2
    errors = []
    for count in (10, 20, 40, 80):
        marks = torch.linspace(level[0], level[950], count + 1).double()
        steps = sorted({int((level - mark).abs().argmin()) for mark in marks})
        errors.append(wrong(process, sampler, steps, x))
    assert errors[0] / errors[-1] > 0.5 * 8**order, errors
    assert errors[-1] < limit, errors


def test_higher_order_is_closer(process, x):
    steps = timesteps("25")
    first = wrong(process, ddim, steps, x)
    assert wrong(process, plms, steps, x) < 0.6 * first
    assert wrong(process, dpm_solver, steps, x) < 0.6 * first


def test_ddim_step_by_step(process, denoise, x):
    got, bars = x, process.alpha_bar.tolist()
    for t, s in ((800, 300), (300, 10), (10, None)):
        prediction = denoise(got, timesteps_like(t, x))
        after = 1.0 if s is None else bars[s]
        got = math.sqrt(after) * prediction.x0 + math.sqrt(1 - after) * prediction.eps
    torch.testing.assert_close(ddim(process, denoise, x, [10, 300, 800]), got)


def test_ddim_noise_deviation(process, denoise, x):
    """From 800 to 300 and, without noise, to the data: the first step's noise arrives scaled."""
    ones, eta = torch.ones_like, 0.4
    a, b = process.alpha_bar[800].item(), process.alpha_bar[300].item()
    sigma = eta * math.sqrt((1 - b) / (1 - a)) * math.sqrt(1 - a / b)
    prediction = denoise(x, timesteps_like(800, x))
    middle = math.sqrt(b) * prediction.x0 + math.sqrt(1 - b - sigma**2) * prediction.eps + sigma
    expected = denoise(middle, timesteps_like(300, x)).x0
    torch.testing.assert_close(ddim(process, denoise, x, [300, 800], noise=ones, eta=eta), expected)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_step_by_step(variance, x):
    process = Process(linear(1000), variance=variance)
    denoise = process.denoiser(best_network(process))
    a, b = process.alpha_bar[800].item(), process.alpha_bar[300].item()
    beta = 1 - a / b
    spread = beta if variance == "large" else beta * (1 - b) / (1 - a)
    prediction = denoise(x, timesteps_like(800, x))
    mean = math.sqrt(b) * beta / (1 - a) * prediction.x0 + math.sqrt(1 - beta) * (1 - b) / (1 - a) * x
    expected = denoise(mean + math.sqrt(spread), timesteps_like(300, x)).x0
    torch.testing.assert_close(ddpm(process, denoise, x, [300, 800], noise=torch.ones_like), expected)


def test_ddim_with_eta_1_is_ddpm(process, denoise, x):
    def drawn():
        return noise_source(torch.arange(4))

    torch.testing.assert_close(
        ddim(process, denoise, x, STEPS, noise=drawn(), eta=1.0), ddpm(process, denoise, x, STEPS, noise=drawn())
    )


def test_ddpm_samples_the_data_distribution():
    torch.manual_seed(0)
    process = Process(linear(200))
    samples = ddpm(process, process.denoiser(best_network(process)), torch.randn(20_000, 1).double(), range(200))
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert samples.std().item() == pytest.approx(DEVIATION, abs=0.02)


def test_mean_gradient_moves_the_mean(process, denoise, x):
    slope = score_gradient(lambda x, t: 2 * x.flatten(1).sum(dim=1))
    steps = [300, 800]
    kept = process.respaced(steps)
    mean, log_variance = kept.reverse(denoise(x, timesteps_like(800, x)), x, timesteps_like(1, x))
    middle = mean + 2 * log_variance.exp()
    mean, log_variance = kept.reverse(denoise(middle, timesteps_like(300, x)), middle, timesteps_like(0, x))
    expected = mean + 2 * log_variance.exp()
    got = ddpm(process, denoise, x, steps, noise=torch.zeros_like, mean_gradient=slope)
    torch.testing.assert_close(got, expected)


def test_inversion_comes_back(process, denoise, x):
    data = MEAN + DEVIATION * x
    exact = ddim_inversion(process, denoise, data, STEPS, inversion_iters=100)
    torch.testing.assert_close(ddim(process, denoise, exact, STEPS), data)
    errors = []
    for spec in ("ddim10", "ddim100", "ddim1000"):
        steps = timesteps(spec)
        back = ddim(process, denoise, ddim_inversion(process, denoise, data, steps), steps)
        errors.append((back - data).abs().max().item())
    assert errors[0] > 4 * errors[1] > 16 * errors[2]


def test_few_inversion_iters_suffice(x):
    """Where alpha nearly vanishes, the noise of x is x, whatever the data: that alone would lead nowhere."""
    process, steps = Process(cosine(1000)), timesteps("27")
    denoise, data = process.denoiser(best_network(process)), MEAN + DEVIATION * x
    errors = [
        (ddim(process, denoise, ddim_inversion(process, denoise, data, steps, refine), steps) - data).abs().max().item()
        for refine in (0, 1, 3, 8)
    ]
    assert errors[1] < errors[0] / 10
    assert errors[2] < 1e-4
    assert errors[3] < 1e-8


def test_one_step_inversion(process, denoise, x):
    """From step 40 to 80, between the first, which takes the noise of step 40 for clean data, and nothing."""
    a, b = process.alpha_bar[40].item(), process.alpha_bar[80].item()
    middle = process.move(x, denoise(x, timesteps_like(40, x)).eps, -1, 40)
    prediction = denoise(middle, timesteps_like(40, x))
    assert a > b
    expected = math.sqrt(b) * prediction.x0 + math.sqrt(1 - b) * prediction.eps
    torch.testing.assert_close(ddim_inversion(process, denoise, x, [40, 80]), expected)


@pytest.mark.parametrize("name", SAMPLERS)
def test_known_region_is_kept(name, process, denoise, x):
    image, mask = torch.rand_like(x), torch.zeros(4, 1, 2, 2)
    mask[..., 0] = 1
    got = SAMPLERS[name](process, threshold(keep_known(denoise, image, mask)), x, STEPS)
    torch.testing.assert_close(got[..., 0], image[..., 0])
    assert (got[..., 1] - image[..., 1]).abs().max() > 0.01


@pytest.mark.parametrize("name", SAMPLERS)
def test_on_step_sees_every_step(name, process, x):
    asked, watched = [], []
    best = best_network(process)

    def network(x, t):
        asked.append(t.tolist())
        return best(x, t)

    SAMPLERS[name](process, process.denoiser(network), x, [3, 50, 999], on_step=lambda t, x0: watched.append(t))
    assert asked == [[999] * 4, [50] * 4, [3] * 4]
    assert watched == [999, 50, 3]


def test_samples_do_not_depend_on_the_batch(process, denoise, x):
    all_four = ddpm(process, denoise, x, STEPS, noise=noise_source(torch.tensor([5, 6, 7, 8])))
    one = ddpm(process, denoise, x[2:3], STEPS, noise=noise_source(torch.tensor([7])))
    torch.testing.assert_close(one, all_four[2:3])
    assert (all_four[0] - all_four[1]).abs().max() > 1e-3


def test_eta_beyond_one_is_refused(process, denoise, x):
    with pytest.raises(ValueError, match=r"eta 1\.5 is not between 0 and 1"):
        ddim(process, denoise, x, STEPS, eta=1.5)


def test_no_gradients_are_kept(process, x):
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    for sampler in SAMPLERS.values():
        assert not sampler(process, process.denoiser(lambda x, t: weight * x), x, [3, 50]).requires_grad
