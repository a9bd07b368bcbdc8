import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dalle_cli.nn.noise import hashed_noise, noise_source, normal, uniform

SEEDS = torch.tensor([0, 1, 2**62, 2**32, -3])  # of which torch's own CPU generator would make three


def on_gpu(gaussian):
    """The numbers of a GPU, worked out here."""
    return lambda seeds, *shape: hashed_noise(seeds, math.prod(shape), gaussian).view(len(seeds), *shape)


@pytest.mark.parametrize("draw", [uniform, normal, on_gpu(False), on_gpu(True)])
def test_numbers_depend_only_on_the_seed(draw):
    together = draw(SEEDS, 3, 20)
    assert together.shape == (5, 3, 20)
    for i in range(len(SEEDS)):
        assert torch.equal(draw(SEEDS[i : i + 1], 3, 20)[0], together[i])
    assert torch.equal(draw(SEEDS.flip(0), 3, 20).flip(0), together)
    assert len(together.flatten(1).unique(dim=0)) == len(SEEDS)


@pytest.mark.parametrize("draw", [uniform, normal])
def test_global_generator_is_untouched(draw):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draw(SEEDS, 4)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("uniform", "normal"), [(uniform, normal), (on_gpu(False), on_gpu(True))])
def test_the_numbers_have_their_distribution(uniform, normal):
    numbers = uniform(torch.arange(100), 1000)
    assert 0 <= numbers.min() < 1e-3
    assert 1 - 1e-3 < numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.005
    numbers = normal(torch.arange(100), 1000)
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.std() - 1) < 0.01
    assert abs((numbers**3).mean()) < 0.05  # no side is favoured
    assert abs((numbers**4).mean() - 3) < 0.1
    near = [numbers[:-1] * numbers[1:], numbers[:, :-1] * numbers[:, 1:]]  # of the next seed, of the next place
    assert all(abs(one.mean()) < 0.01 for one in near)


def test_gpu_numbers_are_splitmix():
    first = torch.tensor([0xE220A8 / 2**24])  # the upper bits of its first number from the state 0
    assert torch.equal(hashed_noise(torch.tensor([0]), 1, False)[0], first)


def test_no_sample_is_no_number():
    assert uniform(SEEDS[:0], 4).shape == (0, 4)


def test_noise_under_fake_tensor_mode():
    with FakeTensorMode(allow_non_fake_inputs=True):
        found = normal(SEEDS, 3, 2)
    assert (found.shape, found.dtype, found.device.type) == ((5, 3, 2), torch.float32, "cpu")


def test_noise_source_continues_per_seed():
    def drawn(seeds):
        more = noise_source(seeds)
        return torch.stack([more(torch.zeros(len(seeds), 3, 4)) for _ in range(2)])

    together = drawn(SEEDS)
    assert not torch.equal(together[0], together[1])
    for i in range(len(SEEDS)):
        assert torch.equal(drawn(SEEDS[i : i + 1])[:, 0], together[:, i])
    assert noise_source(SEEDS)(torch.zeros(5, 2, dtype=torch.float64)).dtype == torch.float64
