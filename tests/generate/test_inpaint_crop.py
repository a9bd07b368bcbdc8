import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli import images
from dalle_cli.exits import BAD_INPUT, Failure
from dalle_cli.generate.inpaint_crop import clipping_note, crop_around, inpaint_mask
from tests.fixtures.miniatures import noise


@pytest.fixture
def image_file(tmp_path):
    """An image of 60 x 40 px and its path."""
    path = tmp_path / "image.png"
    noise(1, 60, 40).save(path)
    return Image.open(path), str(path)


def square(width, height, left, top, side):
    mask = np.zeros((height, width), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_box_is_clipped_at_the_border(image_file):
    image, path = image_file
    assert np.array_equal(inpaint_mask(path, image.size, box=(10, 5, 8, 8)), square(60, 40, 10, 5, 8))
    assert np.array_equal(inpaint_mask(path, image.size, box=(-4, -4, 8, 8)), square(60, 40, 0, 0, 4))
    assert inpaint_mask(path, image.size, box=(50, 30, 100, 100)).sum() == 100


def test_mask_is_light_or_transparent(image_file, tmp_path):
    image, path = image_file
    expected = square(60, 40, 20, 10, 12)
    Image.fromarray((expected * 255).astype(np.uint8)).save(tmp_path / "light.png")
    rgba = np.asarray(image.convert("RGBA")).copy()
    rgba[expected, 3] = 100
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    for name in ("light.png", "clear.png"):
        assert np.array_equal(inpaint_mask(path, image.size, mask=str(tmp_path / name)), expected)
    assert np.array_equal(inpaint_mask(str(tmp_path / "clear.png"), image.size), expected)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"box": (60, 0, 5, 5)}, "box 60,0,5,5 lies outside the image of 60x40 px"),
        ({"box": (0, 0, 0, 5)}, "lies outside"),
        ({"mask": "small.png"}, "has 10x10 px and .* 60x40: give a mask of the image's size"),
        ({"mask": "black.png"}, "no part of it is light or transparent"),
        ({"mask": "small.png", "box": (0, 0, 5, 5)}, "a mask or a box, not both"),
        ({}, "Give --mask, --box, or an image with a transparent part"),
    ],
)
def test_invalid_masks_get_one_line(image_file, tmp_path, monkeypatch, how, said):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (10, 10), 255).save("small.png")
    Image.new("L", (60, 40), 0).save("black.png")
    image, path = image_file
    with pytest.raises(Failure, match=said) as failure:
        inpaint_mask(path, image.size, **how)
    assert failure.value.code in (2, BAD_INPUT)


def test_files_that_are_no_images_are_named(image_file, tmp_path):
    image, path = image_file
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(images.BadImage, match=r"mask .*text\.png: "):
        inpaint_mask(path, image.size, mask=str(tmp_path / "text.png"))
    with pytest.raises(images.BadImage, match=r"text\.png: not an image"):
        images.open_image(tmp_path / "text.png")


@pytest.mark.parametrize(
    ("size", "left", "top", "side", "model", "expected"),
    [
        ((60, 40), 26, 16, 8, 8, (22, 12, 16)),  # twice as large around the middle
        ((60, 40), 0, 0, 8, 8, (0, 0, 16)),  # inside the image
        ((60, 40), 26, 16, 8, 32, (14, 4, 32)),  # at least the model's size
        ((60, 40), 26, 16, 8, 64, (10, 0, 40)),  # at most the image's
        ((60, 20), 4, 0, 20, 8, (4, 0, 20)),
    ],
)
def test_crop_around_a_mask(size, left, top, side, model, expected):
    image = noise(0, *size)
    crop = crop_around(image, square(*size, left, top, side), model)
    assert (crop.left, crop.top, crop.side) == expected
    x, y, length = expected
    assert np.array_equal(crop.pixels, np.asarray(image)[y : y + length, x : x + length])
    assert (~crop.known).sum() == side**2


def test_wide_masks_give_crops_beyond_the_image():
    image = noise(0, 60, 20)
    mask = np.zeros((20, 60), dtype=bool)
    mask[5:10, 5:55] = True
    crop = crop_around(image, mask, 8)
    assert (crop.left, crop.top, crop.side) == (5, -18, 50)
    assert np.array_equal(crop.pixels[0], crop.pixels[18])  # the border, repeated
    assert not crop.known[:18].any()
    assert crop.known[18:23].all()
    filled = np.asarray(crop.paste(torch.zeros(3, 8, 8)))
    assert np.array_equal(filled[~mask], np.asarray(image)[~mask])


def test_reduced_pixels_are_known_if_all_they_cover_is():
    crop = crop_around(noise(0, 32, 32), square(32, 32, 9, 9, 3), 32)
    image, known = crop.at_size(8)
    assert image.shape == (1, 3, 8, 8)
    where = torch.ones(8, 8)
    where[2, 2] = 0
    assert torch.equal(known[0, 0], where)
    assert (crop.at_size(10)[1] == 0).sum() >= 1
    block = torch.from_numpy(crop.pixels[:4, :4].astype(np.float32)).mean(dim=(0, 1)) / 127.5 - 1
    torch.testing.assert_close(image[0, :, 0, 0], block, atol=0.01, rtol=0)
    assert (crop.at_size(64)[1] == 0).sum() == 36


def test_pixels_outside_the_mask_are_bit_identical():
    image = noise(0, 50, 40)
    mask = square(50, 40, 11, 7, 9)
    for size in (8, 16, 64):
        filled = np.asarray(crop_around(image, mask, 16).paste(torch.rand(3, size, size) * 2 - 1))
        assert np.array_equal(filled[~mask], np.asarray(image)[~mask])
        assert not np.array_equal(filled[mask], np.asarray(image)[mask])


def test_seam_is_smooth_and_hides_the_old_content():
    """A gray image with a black region, filled 40 levels too light: no step at the seam, the new level far inside."""
    pixels = np.full((128, 128, 3), 120, dtype=np.uint8)
    mask = square(128, 128, 32, 32, 64)
    pixels[mask] = 0
    filled = np.asarray(crop_around(Image.fromarray(pixels), mask, 64).paste(torch.full((3, 64, 64), 160 / 127.5 - 1)))
    row = filled[64, :, 0].astype(int)
    assert abs(row[32] - row[31]) <= 5
    assert row[64] == 160
    assert (np.diff(row[32:64]) >= 0).all()
    assert row[32:96].min() >= 118


def test_boxes_within_the_image_need_no_note():
    assert clipping_note("a.png", (60, 40), (0, 0, 60, 40)) is None
    for box in ((-1, 0, 5, 5), (0, -1, 5, 5), (56, 0, 5, 5), (0, 36, 5, 5)):
        assert "reaches beyond the image of 60x40 px" in (clipping_note("a.png", (60, 40), box) or "")
