import io
import random
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dalle_cli import images
from dalle_cli.images import BadImage, decode, save_gif, save_png, square, to_pil, to_tensor


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixel(image: Image.Image, at=(0, 0)) -> tuple:
    return tuple(np.asarray(image)[at[1], at[0]].tolist())


def halves(mode: str, left, right) -> Image.Image:
    """16 x 16, two colors."""
    image = Image.new(mode, (16, 16), right)
    image.paste(left, (0, 0, 8, 16))
    return image


def bomb(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes whose header claims width x height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("mode", "left", "right", "expected"),
    [
        ("RGB", (200, 10, 20), (1, 2, 3), ((200, 10, 20), (1, 2, 3))),
        ("L", 77, 200, ((77, 77, 77), (200, 200, 200))),
        ("1", 0, 1, ((0, 0, 0), (255, 255, 255))),
        ("RGBA", (200, 0, 0, 255), (0, 0, 0, 0), ((200, 0, 0), (255, 255, 255))),
        ("LA", (50, 255), (50, 0), ((50, 50, 50), (255, 255, 255))),
        ("I;16", 0, 65535, ((0, 0, 0), (255, 255, 255))),
        ("I;16", 257 * 100, 257 * 200, ((100, 100, 100), (200, 200, 200))),
    ],
)
def test_modes_of_png(mode, left, right, expected):
    if mode == "I;16":
        data = np.full((16, 16), right, np.uint16)
        data[:, :8] = left
        image = Image.fromarray(data)
    else:
        image = halves(mode, left, right)
    assert image.mode == mode
    result = decode(encoded(image))
    assert result.mode == "RGB"
    assert (pixel(result), pixel(result, (15, 0))) == expected


def test_transparency_is_composited_on_white():
    result = decode(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128))))
    assert all(abs(value - 127) <= 1 for value in pixel(result))


def test_palette_with_transparency():
    image = halves("RGB", (250, 0, 0), (0, 0, 250)).quantize(2)
    index = image.getpixel((15, 0))
    assert pixel(decode(encoded(image))) == (250, 0, 0)
    result = decode(encoded(image, transparency=index))
    assert (pixel(result), pixel(result, (15, 0))) == ((250, 0, 0), (255, 255, 255))


def test_transparent_color_without_an_alpha_channel():
    for mode, left, right in (("RGB", (9, 9, 9), (40, 50, 60)), ("L", 9, 40)):
        result = decode(encoded(halves(mode, left, right), transparency=right))
        assert (pixel(result), pixel(result, (15, 0))) == ((9, 9, 9), (255, 255, 255))
    deep = Image.fromarray(np.full((4, 4), 1000, np.uint16))
    assert pixel(decode(encoded(deep, transparency=1000))) == (255, 255, 255)


def test_cmyk_jpeg():
    result = decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = pixel(result)
    assert red > 220
    assert green < 40
    assert blue < 40


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[0, 200]], np.int32), [0, 200]),
        (np.array([[-100, 100]], np.int32), [0, 255]),
        (np.array([[0, 2**30]], np.int32), [0, 255]),
        (np.array([[0, 0.5]], np.float32), [0, 128]),
        (np.array([[0, 250]], np.float32), [0, 250]),
        (np.array([[-1, 1]], np.float32), [0, 255]),
        (np.array([[0, 0]], np.float32), [0, 0]),
    ],
)
def test_wide_tiffs_are_scaled_not_clipped(pixels, expected):
    result = decode(encoded(Image.fromarray(pixels), "TIFF"))
    assert np.asarray(result)[0, :, 0].tolist() == expected


def test_non_finite_pixels_are_bad():
    with pytest.raises(BadImage, match="not numbers"):
        decode(encoded(Image.fromarray(np.array([[0, np.nan]], np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone(kind, orientation):
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste((255, 0, 0), (0, 0, 24, 16))  # red at the top left
    stored = {
        1: lambda x: x,
        2: lambda x: x.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda x: x.transpose(Image.Transpose.ROTATE_180),
        4: lambda x: x.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda x: x.transpose(Image.Transpose.TRANSPOSE),
        6: lambda x: x.transpose(Image.Transpose.ROTATE_90),
        7: lambda x: x.transpose(Image.Transpose.TRANSVERSE),
        8: lambda x: x.transpose(Image.Transpose.ROTATE_270),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = decode(encoded(stored, kind, exif=exif))
    assert result.size == (48, 32)
    difference = np.abs(np.asarray(result).astype(int) - np.asarray(upright).astype(int))
    assert difference.mean() < 3


def test_broken_exif_does_not_matter():
    good = encoded(Image.new("RGB", (16, 16), "red"), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with pytest.warns(UserWarning, match="Corrupt EXIF"):  # which the module keeps from users; pytest resets that
        assert decode(good).size == (16, 16)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    red, _, blue = pixel(decode(data))
    assert red > 200
    assert blue < 50


def test_warnings_of_pillow_are_silent():
    program = """
import sys
from dalle_cli.images import decode
decode(sys.stdin.buffer.read())
"""
    data = encoded(Image.new("RGB", (16, 16), "red"), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    assert done.stderr == b""


def test_pixel_bombs_are_refused_by_their_header():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImage, match="too many pixels: 60000x60000"):
            decode(bomb(60000, 60000))
        with pytest.raises(BadImage, match="too many pixels: 10000x10000"):  # between Pillow's warning and its error
            decode(bomb(10000, 10000))
        with pytest.raises(BadImage, match="too many pixels"):
            decode(encoded(Image.new("RGB", (11, 10))), max_pixels=100)
        assert decode(encoded(Image.new("RGB", (10, 10))), max_pixels=100).size == (10, 10)


def test_truncated_images_are_bad(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG", "WEBP"):
        data = encoded(noise, kind)
        for fraction in (0.2, 0.5, 0.9):
            with pytest.raises(BadImage):
                decode(data[: int(len(data) * fraction)])


def test_reasons_of_bad_files(tmp_path):
    with pytest.raises(BadImage, match=r"^not an image$"):
        decode(b"just words")
    with pytest.raises(BadImage, match=r"^not an image$"):
        decode(b"")
    with pytest.raises(BadImage, match=r"^missing file$"):
        decode(tmp_path / "nothing.jpg")
    with pytest.raises(BadImage, match=r"^a folder$"):
        decode(tmp_path)


@pytest.mark.parametrize("kind", ["ICO", "EPS", "PSD", "ICNS"])
def test_unsafe_formats_are_not_opened(kind):
    heads = {"PSD": b"8BPS\0\1" + b"\0" * 64}
    data = heads.get(kind) or encoded(Image.new("RGB", (32, 32)), kind)
    with pytest.raises(BadImage, match=r"^not an image$"):
        decode(data)


@given(
    st.binary(max_size=200), st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"]), st.integers(0, 400)
)
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_files_raise_only_bad_image(junk, kind, at):
    data = encoded(Image.effect_noise((24, 24), 60).convert("RGB"), kind)
    try:
        outcome = decode(data[:at] + junk + data[at + len(junk) :], max_pixels=10_000).mode
    except BadImage as error:
        outcome = str(error)
    assert "\n" not in outcome


def test_jpeg_reduction_keeps_the_requested_size():
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 800).astype(np.uint8), (600, 1))).convert("RGB")
    data = encoded(ramp, "JPEG", quality=95)
    assert decode(data).size == (800, 600)
    assert decode(data, at_least=600).size == (800, 600)
    assert decode(data, at_least=300).size == (400, 300)
    assert decode(data, at_least=299).size == (400, 300)
    assert decode(data, at_least=10).size == (100, 75)
    exact = np.asarray(images.resize(decode(data), 64)).astype(int)
    reduced = np.asarray(images.resize(decode(data, at_least=128), 64)).astype(int)
    assert np.abs(exact - reduced).mean() < 1


def test_tensor_round_trip():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    tensor = to_tensor(Image.fromarray(pixels))
    assert tensor.shape == (3, 16, 16)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert tensor.min() == -1
    assert tensor.max() == 1
    assert (np.asarray(to_pil(tensor)) == pixels).all()
    assert pixel(to_pil(torch.full((3, 2, 2), 7.0))) == (255, 255, 255)
    assert pixel(to_pil(torch.full((3, 2, 2), -7.0, dtype=torch.bfloat16))) == (0, 0, 0)


def test_resize_and_center_crop():
    assert images.resize(Image.new("RGB", (500, 375)), 224).size == (298, 224)
    assert images.resize(Image.new("RGB", (375, 500)), 224).size == (224, 298)
    assert images.resize(Image.new("RGB", (1000, 1)), 4).size == (4000, 4)
    image = Image.new("RGB", (9, 3))
    image.paste("red", (3, 0, 6, 3))
    assert np.asarray(images.center_crop(image, 3)).reshape(-1, 3).tolist() == [[255, 0, 0]] * 9


@given(st.integers(20, 300), st.integers(20, 300), st.integers(8, 200), st.data())
@settings(max_examples=40, deadline=None)
def test_random_crop_equals_crop_of_resized(width, height, short, data):
    size = data.draw(st.integers(1, short))
    noise = np.random.default_rng(width * height).integers(80, 176, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)  # contrast so low that the filter's overshoot is not clipped between passes
    seed = data.draw(st.integers(0, 99))
    fast = np.asarray(images.random_crop(image, size, random.Random(seed), short)).astype(int)
    slow = np.asarray(images.random_crop(images.resize(image, short), size, random.Random(seed))).astype(int)
    assert fast.shape == (size, size, 3)
    assert np.abs(fast - slow).max() <= 2


def test_random_crop_reaches_every_position():
    image = Image.new("RGB", (6, 4))
    seen = {
        images.random_crop(Image.fromarray(grid(image)), 3, random.Random(seed)).getpixel((0, 0)) for seed in range(200)
    }
    assert len(seen) == 4 * 2


def grid(image: Image.Image) -> np.ndarray:
    pixels = np.zeros((image.height, image.width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.mgrid[: image.height, : image.width]
    return pixels


def test_text_in_a_png_survives(tmp_path):
    path = tmp_path / "x.png"
    text = {"parameters": "a cat\nSteps: 20, Seed: 1", "dalle": '{"prompt": "猫 🐈"}', "odd": "lone \ud800 half"}
    save_png(Image.new("RGB", (4, 4), "red"), path, text)
    with Image.open(path) as image:
        image.load()
        assert image.text == {**text, "odd": "lone ? half"}
    assert pixel(decode(path)) == (255, 0, 0)
    assert [file.name for file in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("shape", [(40, 20), (20, 50), (8, 8), (300, 280)])
def test_square_keeps_the_shorter_side(shape):
    """It has the middle of the image, and the whole of its shorter side."""
    result = np.asarray(
        square(Image.fromarray(np.tile(np.linspace(0, 255, shape[0]).astype(np.uint8), (shape[1], 1))), 8)
    )
    assert result.shape == (8, 8)
    reach = min(shape) / shape[0] * 255 / 2
    assert result[:, 0].mean() == pytest.approx(127.5 - reach * 7 / 8, abs=17)
    assert result[:, -1].mean() == pytest.approx(127.5 + reach * 7 / 8, abs=17)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    save_png(Image.new("RGB", (4, 4), "red"), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_png(Image.new("RGB", (4, 4), "blue"), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.png"]


def test_saved_file_has_the_usual_permissions(tmp_path):
    save_png(Image.new("RGB", (4, 4)), tmp_path / "x.png")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "x.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_gif_frames_have_their_duration(tmp_path):
    colors = ("red", "green", "blue")
    save_gif([Image.new("RGB", (12, 8), color) for color in colors], tmp_path / "new" / "a.gif", [200, 50, 90])
    with Image.open(tmp_path / "new" / "a.gif") as film:
        assert (film.n_frames, film.info["loop"], film.size) == (3, 0, (12, 8))
        shown = []
        for i in range(3):
            film.seek(i)
            shown.append((film.info["duration"], film.convert("RGB").getpixel((3, 3))))
    assert shown == [(200, (255, 0, 0)), (50, (0, 128, 0)), (90, (0, 0, 255))]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.gif"]


def test_transparency_mask_is_upright(tmp_path):
    rgba = np.full((4, 6, 4), 255, dtype=np.uint8)
    rgba[0, 1, 3] = 254
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(rgba).save(tmp_path / "a.png", exif=exif)
    result = images.transparency_mask(tmp_path / "a.png")
    assert result.shape == (6, 4)
    assert np.argwhere(result).tolist() == [[1, 3]]
    rgba[0, 1, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "b.png")
    assert images.transparency_mask(tmp_path / "b.png") is None
    Image.new("RGB", (2, 2)).save(tmp_path / "c.png")
    assert images.transparency_mask(tmp_path / "c.png") is None
    with pytest.raises(images.BadImage):
        images.transparency_mask(tmp_path / "none.png")


def test_psnr():
    assert images.psnr(torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)) == pytest.approx(100)
    assert images.psnr(torch.zeros(3, 2, 2), torch.full((3, 2, 2), 0.2)) == pytest.approx(20, abs=1e-4)


def test_open_image_names_the_file(tmp_path):
    (tmp_path / "text.png").write_text("words")
    with pytest.raises(BadImage, match=r"^\S+text\.png: not an image$"):
        images.open_image(tmp_path / "text.png")
    with pytest.raises(BadImage, match=r"^--image \S+gone\.png: missing file$"):
        images.open_image(tmp_path / "gone.png", "--image")


def test_image_size_is_that_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert images.image_size(tmp_path / "a.jpg") == decode(tmp_path / "a.jpg").size == (4, 6)
    with pytest.raises(BadImage, match=r"gone\.png: missing file"):
        images.image_size(tmp_path / "gone.png")


def test_pad_to_square_crops_nothing():
    padded = np.asarray(images.pad_to_square(Image.new("RGB", (10, 4), "red")))
    assert padded.shape == (10, 10, 3)
    assert (padded == (255, 0, 0)).all(axis=2).sum() == 40
    assert (padded[[0, 1, 2, 7, 8, 9]] == 255).all()
    image = Image.new("RGB", (4, 4))
    assert images.pad_to_square(image) is image


def test_side_by_side_joins_from_left_to_right():
    joined = np.asarray(images.side_by_side([Image.new("RGB", (3, 2), color) for color in ("red", "blue")], gap=1))
    assert joined.shape == (2, 7, 3)
    assert joined[0, :, 0].tolist() == [255, 255, 255, 255, 0, 0, 0]


def test_psnr_of_batches_is_that_of_each_image():
    a, b = torch.rand(2, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    errors = images.mse(a, b)
    assert images.psnr_of_mse(errors).tolist() == pytest.approx([images.psnr(x, y) for x, y in zip(a, b)])
    assert errors.tolist() == pytest.approx([((x - y) / 2).square().mean().item() for x, y in zip(a, b)])
