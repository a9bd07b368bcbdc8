import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli.data.bsr_degradation import camera, degrade, jpeg, noise

FLAT = Image.new("RGB", (24, 16), (90, 140, 200))


def picture(size=32):
    """Large, soft shapes in colour, so that what a degradation does can be measured."""
    y, x = torch.meshgrid(torch.linspace(0, 3, size), torch.linspace(0, 3, size), indexing="ij")
    return (127 + 100 * torch.stack([x.sin() * y.cos(), (x + y).sin(), (x - y).cos()])).byte()


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_what_comes_out_is_smaller_and_its_seed_s_alone(factor):
    image = picture()
    small = degrade(image, factor, 5)
    assert (small.shape, small.dtype) == ((3, 32 // factor, 32 // factor), torch.uint8)
    assert torch.equal(degrade(image, factor, 5), small)
    assert len({degrade(image, factor, seed).numpy().tobytes() for seed in range(40)}) > 30


def test_it_shows_what_was_there_now_better_now_worse():
    image = picture(64)
    clean = torch.nn.functional.avg_pool2d(image.float(), 4)
    errors = torch.stack([(degrade(image, 4, seed).float() - clean).square().mean().sqrt() for seed in range(200)])
    assert errors.max() < 40  # of 255
    assert errors.quantile(0.1) < 3
    assert errors.quantile(0.9) > 8


def test_a_share_is_only_made_smaller():
    image = picture(64)
    clean = torch.nn.functional.avg_pool2d(image.float(), 4)
    off = [(degrade(image, 4, seed, clean=0.5).float() - clean).abs().max() for seed in range(100)]
    assert 30 < sum(one <= 1 for one in off) < 70


def test_sides_need_not_be_equal_or_even():
    assert degrade(picture(33)[:, :21], 3, 1).shape == (3, 7, 11)


@pytest.mark.parametrize("step", [noise, camera])
def test_noise_is_around_the_picture(step):
    spread = []
    for seed in range(20):
        off = np.asarray(step(FLAT, rng(seed)), dtype=float) - np.asarray(FLAT, dtype=float)
        assert abs(off.mean()) < 6
        spread.append(off.std())
    assert max(spread) > 5
    assert min(spread) < 4


def test_a_camera_s_noise_grows_with_the_light_and_guesses_colours():
    dark, light = (Image.new("L", (64, 64), level).convert("RGB") for level in (20, 200))

    def linear(page, seed):
        return (np.asarray(camera(page, rng(seed)), dtype=float) / 255) ** 2.2

    assert sum(linear(light, s).std() for s in range(10)) > 2 * sum(linear(dark, s).std() for s in range(10))
    noisy = np.asarray(camera(light, rng(3)), dtype=float)[..., 0]
    noisy = noisy - noisy.mean()
    assert (noisy[:, 1:] * noisy[:, :-1]).mean() > 0.2 * noisy.var()  # neighbours were guessed from each other


def test_jpeg_leaves_blocks():
    sharp = Image.fromarray(rng().integers(0, 256, (16, 16, 3), dtype=np.uint8))
    again = jpeg(sharp, rng())
    assert again.size == sharp.size
    assert 2 < np.abs(np.asarray(again, dtype=float) - np.asarray(sharp, dtype=float)).mean() < 90
    assert np.abs(np.asarray(jpeg(FLAT, rng()), dtype=int) - np.asarray(FLAT, dtype=int)).max() <= 4
