import math

import pytest
import torch

from dalle_cli.diffusion.process import Process, entries_at, timesteps_like
from dalle_cli.diffusion.schedules import cosine, linear

T = torch.tensor([0, 1, 500, 999])


def rows(numbers):
    return torch.tensor(numbers, dtype=torch.float64).view(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("schedule", "log_variance", "of_x0", "of_x"),
    [
        (
            linear,
            [-9.816725135, -9.816725135, -4.600049740, -3.912023829],
            [1, 5.452914995103e-01, 3.058057075630e-03, 1.283514871722e-04],
            [0, 4.547084989905e-01, 9.941043507567e-01, 9.899486782675e-01],
        ),
        (
            cosine,
            [-10.734082532, -10.734082532, -5.761621845, -1.002927e-03],
            [1, 5.277814093345e-01, 4.367866899526e-03, 1.556891715490e-03],
            [0, 4.722185904268e-01, 9.953562794552e-01, 3.162269987413e-02],
        ),
    ],
)
def test_posterior_has_the_published_coefficients(schedule, log_variance, of_x0, of_x):
    process = Process(schedule(1000))
    one, none = torch.ones(4, 1, 1, 1, dtype=torch.float64), torch.zeros(4, 1, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(process.posterior(one, none, T)[0], rows(of_x0), rtol=1e-9, atol=0)
    torch.testing.assert_close(process.posterior(none, one, T)[0], rows(of_x), rtol=1e-9, atol=0)
    torch.testing.assert_close(process.posterior(one, one, T)[1], rows(log_variance), rtol=1e-6, atol=0)


def test_posterior_follows_bayes():
    process, t = Process(cosine(50)), 20
    before, now = process.alpha_bar[t - 1].item(), process.alpha_bar[t].item()
    step = now / before  # x_t = sqrt(step) x_{t-1} + noise
    precision = step / (1 - step) + 1 / (1 - before)
    x0, x = torch.tensor([[0.7]]).double(), torch.tensor([[-0.4]]).double()
    mean = (math.sqrt(step) / (1 - step) * x + math.sqrt(before) / (1 - before) * x0) / precision
    got, log_variance = process.posterior(x0, x, timesteps_like(t, x))
    torch.testing.assert_close(got, mean)
    assert log_variance.item() == pytest.approx(-math.log(precision))


def test_noise_composes_over_steps():
    process = Process(linear(30))
    alpha, variance = 1.0, 0.0
    for t, beta in enumerate(process.beta.tolist()):
        alpha, variance = math.sqrt(1 - beta) * alpha, (1 - beta) * variance + beta
        noised = process.noise(torch.tensor([[2.0]]), torch.tensor([t]), torch.tensor([[-1.0]]))
        assert noised.item() == pytest.approx(2 * alpha - math.sqrt(variance), rel=1e-5)
        assert process.level(t) == pytest.approx((alpha, math.sqrt(variance)))
    assert process.level(-1) == (1, 0)


def outputs(process, x0, eps, t):
    """What a perfect network gives, by what it predicts."""
    alpha, sigma = entries_at(process.alpha_bar.sqrt(), t, x0), entries_at((1 - process.alpha_bar).sqrt(), t, x0)
    return {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0}


@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
def test_prediction_types(predict, x):
    process = Process(linear(1000), predict)
    eps = torch.randn_like(x)
    noised = process.noise(x, T, eps)
    output = outputs(process, x, eps, T)[predict]
    prediction = process.read(output, noised, T)
    torch.testing.assert_close(prediction.x0, x)
    torch.testing.assert_close(prediction.eps, eps)
    torch.testing.assert_close(getattr(prediction, predict), output)
    torch.testing.assert_close(prediction.alpha**2 + prediction.sigma**2, torch.ones_like(prediction.alpha))
    assert prediction.variance is None


def test_with_x0_keeps_the_sample(x):
    process = Process(linear(1000))
    prediction = process.read(torch.randn_like(x), x, T).with_x0(torch.zeros_like(x))
    torch.testing.assert_close(prediction.alpha * prediction.x0 + prediction.sigma * prediction.eps, x)
    torch.testing.assert_close(prediction.eps, x / prediction.sigma)


def test_learned_range_is_between_bounds(x):
    process = Process(linear(1000), variance="learned-range")
    low, high = (entries_at(table, T, x) for table in (process.log_variance, process.beta.log()))
    for said, expected in ((-1.0, low), (1.0, high), (0.5, 0.25 * low + 0.75 * high)):
        output = torch.cat([torch.zeros_like(x), torch.full_like(x, said)], dim=1)
        prediction = process.read(output, x, T)
        _, log_variance = process.reverse(prediction, x, T)
        torch.testing.assert_close(log_variance, expected.expand_as(x))


def test_learned_variance_is_the_logarithm_itself(x):
    process = Process(linear(1000), variance="learned")
    output = torch.randn(4, 6, 2, 2, dtype=torch.float64)
    _, log_variance = process.reverse(process.read(output, x, T), x, T)
    assert torch.equal(log_variance, output[:, 3:])


def test_fixed_variances(x):
    for variance, expected in (("small", lambda p: p.posterior_variance), ("large", lambda p: p.beta)):
        process = Process(linear(1000), variance=variance)
        mean, log_variance = process.reverse(process.read(x, x, T), x, T)
        table = expected(process).clone()
        table[0] = process.posterior_variance[1]
        torch.testing.assert_close(log_variance.exp(), entries_at(table, T, x))
        torch.testing.assert_close(mean, process.posterior(process.read(x, x, T).x0, x, T)[0])


@pytest.mark.parametrize(("variance", "channels"), [("learned-range", 3), ("small", 6)])
def test_wrong_channels_are_refused(variance, channels, x):
    process = Process(linear(1000), variance=variance)
    with pytest.raises(ValueError, match=f"gives {channels} channels where variance '{variance}' needs {9 - channels}"):
        process.read(torch.zeros(4, channels, 2, 2), x, T)


def test_respaced_betas_are_the_published_ones():
    process = Process(linear(1000)).respaced([0, 40, 80])
    assert process.beta.tolist() == pytest.approx([1e-4, 2.013508946e-2, 5.090024001e-2])
    cos = Process(cosine(1000)).respaced([0, 166, 333, 500, 666, 832, 999])
    assert cos.beta.tolist() == pytest.approx(
        [4.128422482197e-05, 7.236161042926e-02, 2.001135414768e-01, 3.365203190708e-01,
         5.002885078710e-01, 7.308114690666e-01, 9.999999633231e-01]
    )  # fmt: skip


def test_nearest_steps_of_another_schedule():
    one, other = Process(linear(1000)), Process(cosine(1000))
    assert one.like(one).tolist() == list(range(1000))
    there = one.like(other)
    assert len(there) == 1000
    assert (there.diff() >= 0).all()
    torch.testing.assert_close(one.alpha_bar[there[100:900]], other.alpha_bar[100:900], rtol=0.02, atol=0)


def test_move_is_reversible(x):
    process, eps = Process(linear(1000)), torch.randn(4, 3, 2, 2, dtype=torch.float64)
    at_100, at_700 = (process.noise(x, timesteps_like(t, x), eps) for t in (100, 700))
    torch.testing.assert_close(process.move(at_100, eps, 100, 700), at_700)
    torch.testing.assert_close(process.move(at_700, eps, 700, 100), at_100)
    torch.testing.assert_close(process.move(at_100, eps, 100, -1), x)


def test_halves_of_a_batch(x):
    process = Process(linear(1000), variance="learned-range")
    prediction = process.read(torch.randn(4, 6, 2, 2), x, T)
    first, second = prediction.halves()
    for name in ("x0", "eps", "alpha", "sigma", "variance"):
        assert torch.equal(torch.cat([getattr(first, name), getattr(second, name)]), getattr(prediction, name))
    assert Process(linear(1000)).read(x, x, T).halves()[1].variance is None


def test_conditions_reach_the_network(x):
    denoise = Process(linear(1000)).denoiser(lambda x, t, factor: factor * x, factor=3)
    torch.testing.assert_close(denoise(x, T).eps, 3 * x)


def test_mathematics_in_the_type_of_the_sample():
    x = torch.zeros(2, 3, 2, 2)
    prediction = Process(linear(1000)).read(torch.zeros(2, 3, 2, 2, dtype=torch.bfloat16), x, torch.tensor([3, 4]))
    assert prediction.x0.dtype == prediction.eps.dtype == torch.float32
