import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dalle_cli.data.transforms import CROPS, held_out_crop, mirror


def coordinates(width: int, height: int) -> Image.Image:
    """A picture whose red and green channels say where, in fractions of the width and height."""
    pixels = np.zeros((height, width, 3))
    pixels[..., 1], pixels[..., 0] = np.mgrid[:height, :width]
    return Image.fromarray(np.round(pixels * [255 / max(width - 1, 1), 255 / max(height - 1, 1), 0]).astype(np.uint8))


def extent(image: Image.Image) -> np.ndarray:
    """Leftmost, rightmost, highest and lowest places seen, in fractions."""
    pixels = np.asarray(image).astype(float) / 255
    return np.array([pixels[:, 0, 0].mean(), pixels[:, -1, 0].mean(), pixels[0, :, 1].mean(), pixels[-1, :, 1].mean()])


def spans(name: str, width: int, height: int, size: int, count: int = 200) -> np.ndarray:
    return np.array([extent(CROPS[name](coordinates(width, height), size, random.Random(i))) for i in range(count)])


@given(st.sampled_from(sorted(CROPS)), st.integers(1, 120), st.integers(1, 120), st.integers(1, 80), st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_any_picture_becomes_the_square_and_the_same_one_again(name, width, height, size, seed):
    image = coordinates(width, height)
    first = CROPS[name](image, size, random.Random(seed))
    assert first.size == (size, size)
    assert first.tobytes() == CROPS[name](image, size, random.Random(seed)).tobytes()


@pytest.mark.parametrize("name", ["center", "adm"])
def test_middle_crops_take_nothing_from_the_generator(name):
    left, right, top, bottom = spans(name, 200, 100, 50, count=2)[1]
    assert left == pytest.approx(0.25, abs=0.02)
    assert right == pytest.approx(0.75, abs=0.02)
    assert (top, bottom) == (pytest.approx(0, abs=0.02), pytest.approx(1, abs=0.02))


def test_random_keeps_the_short_side_whole():
    seen = spans("random", 200, 100, 50)
    assert np.allclose(seen[:, 2], 0, atol=0.02)
    assert np.allclose(seen[:, 3], 1, atol=0.02)
    assert seen[:, 0].min() < 0.05
    assert seen[:, 1].max() > 0.95
    assert np.allclose(seen[:, 1] - seen[:, 0], 0.5, atol=0.04)


def test_dvae_takes_any_square_and_9_to_12_eighths():
    seen = spans("dvae", 200, 100, 32, count=250)
    assert seen[:, 0].min() < 0.05  # any square
    assert seen[:, 1].max() > 0.95
    shown = seen[:, 3] - seen[:, 2]  # of the side of the square
    assert shown.min() == pytest.approx(8 / 12, abs=0.04)
    assert shown.max() == pytest.approx(8 / 9, abs=0.04)


def test_dalle_stays_near_the_middle_and_shows_8_to_9_ninths():
    seen = spans("dalle", 200, 100, 32, count=250)
    shown = seen[:, 3] - seen[:, 2]
    assert shown.min() == pytest.approx(8 / 9, abs=0.04)
    assert shown.max() == pytest.approx(1, abs=0.04)
    middle = (seen[:, 0] + seen[:, 1]) / 2  # of the slack of one half: 3/8 to 5/8, and the inner crop
    assert 0.4 < middle.min() < 0.45
    assert 0.55 < middle.max() < 0.6


def test_adm_random_shows_8_to_10_tenths_of_the_short_side():
    shown = (lambda seen: seen[:, 3] - seen[:, 2])(spans("adm-random", 200, 100, 32, count=250))
    assert shown.min() == pytest.approx(0.8, abs=0.04)
    assert shown.max() == pytest.approx(1, abs=0.04)


def test_align_shows_289_of_346():
    seen = spans("align", 200, 100, 32)
    assert np.allclose(seen[:, 3] - seen[:, 2], 289 / 346, atol=0.04)


@pytest.mark.parametrize("name", sorted(set(CROPS) - {"align", "adm-random"}))
def test_a_square_of_the_right_size_is_left_as_it_is(name):
    image = coordinates(64, 64)
    assert CROPS[name](image, 64, random.Random(0)).tobytes() == image.tobytes()


def test_mirror_is_a_fair_coin():
    image = coordinates(8, 8)
    flipped = [mirror(image, random.Random(seed)).getpixel((0, 0))[0] > 128 for seed in range(400)]
    assert 160 < sum(flipped) < 240


def test_pad_keeps_the_whole_image_on_white():
    image = Image.new("RGB", (40, 20), "red")
    padded = CROPS["pad"](image, 16, random.Random(0))
    assert padded.size == (16, 16)
    pixels = np.asarray(padded)
    assert (pixels[[0, 1, 2, 3, 12, 13, 14, 15]] == 255).all()
    assert (pixels[5:11] == (255, 0, 0)).all()


def test_pad_enlarges_small_images():
    assert CROPS["pad"](Image.new("RGB", (4, 8)), 16, random.Random(0)).size == (16, 16)


def test_validation_of_padded_images_is_padded():
    assert held_out_crop("pad") is CROPS["pad"]
    assert held_out_crop("random") is CROPS["center"]
