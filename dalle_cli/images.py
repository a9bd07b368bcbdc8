"""Image files: decoded to RGB, converted to tensors and back, cropped, and written as PNG with text chunks or as GIF.

Inside the program an image is a float32 tensor (3, H, W) in [-1, 1]; this is the only module that reads or writes
image files. Torch is imported only where tensors are made.
"""

import functools
import io
import math
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from . import distributed
from .files import write_atomically

if TYPE_CHECKING:
    import torch

BICUBIC, LANCZOS, BOX = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BOX

# Formats whose header states the size of what will be decoded. Left out on purpose: icons (a small header may precede a
# huge image) and EPS (decoded by running a program).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF")
EXTENSIONS = frozenset(
    ".jpg .jpeg .png .webp .gif .bmp .tif .tiff .avif .jp2 .jpx .ppm .pgm .pbm .pnm".split()  # noqa: SIM905
)

# `decode` checks the size in the header against its own limit; Pillow's limit is global and only warns, so it is off.
Image.MAX_IMAGE_PIXELS = None

# Pillow warns about odd metadata in a large part of the images on the web.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_UPRIGHT = {  # EXIF orientation -> the transpose that undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_UPRIGHT[number] for number in (5, 6, 7, 8)}


class BadImage(ValueError):
    """A file that cannot be read as an image; the message is a short reason, `reason` or `reason: detail`."""


def decode(
    file: str | Path | bytes | BinaryIO, max_pixels: int = 50_000_000, at_least: int | None = None
) -> Image.Image:
    """Read an image as RGB, upright, transparency on white; of an animation the first frame.

    max_pixels: larger images are refused by their header, before anything is decoded. at_least: a JPEG may be reduced
    while decoding (to 1/2, 1/4 or 1/8, which is several times faster) as long as its shorter side keeps this many
    pixels; None decodes at full size. Raises BadImage.
    """
    with _opened(file, max_pixels) as image:
        if at_least:
            image.draft("RGB", (at_least, at_least))
        image.load()
        transpose = _UPRIGHT.get(_orientation(image))
        rgb = _rgb(image)
        return rgb.transpose(transpose) if transpose is not None else rgb


def open_image(path: str | Path, label: str = "") -> Image.Image:
    """Read an image file as RGB. Raises BadImage, whose message names the file, after a label such as `mask`."""
    try:
        return decode(path)
    except BadImage as error:
        raise BadImage(f"{label} {path}: {error}".lstrip()) from None


def image_size(path: str | Path) -> tuple[int, int]:
    """Return the width and height of an image file, upright, by its header. Raises BadImage, which names the file."""
    try:
        with _opened(path, sys.maxsize) as image:
            width, height = image.size
            sideways = _UPRIGHT.get(_orientation(image)) in _SIDEWAYS
            return (height, width) if sideways else (width, height)
    except BadImage as error:
        raise BadImage(f"{path}: {error}") from None


def decode_rgba(file: str | Path, max_pixels: int = 50_000_000) -> Image.Image | None:
    """Read an image as RGBA, upright; None where all of it is opaque. Raises BadImage."""
    with _opened(file, max_pixels) as image:
        if not image.has_transparency_data:
            return None
        transpose = _UPRIGHT.get(_orientation(image))
        rgba = image.convert("RGBA")
    rgba = rgba.transpose(transpose) if transpose is not None else rgba
    return rgba if np.asarray(rgba.getchannel("A")).min() < 255 else None


def transparency_mask(file: str | Path) -> "np.ndarray | None":
    """Return where an image, upright, is not opaque, bool (H, W); None where all of it is opaque. Raises BadImage."""
    rgba = decode_rgba(file)
    return None if rgba is None else np.asarray(rgba)[:, :, 3] < 255


def to_tensor(image: Image.Image) -> "torch.Tensor":
    """Convert an RGB image to float32 (3, H, W) in [-1, 1]."""
    return to_float(to_bytes(image))


def to_bytes(image: Image.Image) -> "torch.Tensor":
    """Convert an RGB image to uint8 (3, H, W)."""
    import torch

    return torch.from_numpy(np.array(np.asarray(image).transpose(2, 0, 1), order="C"))


def to_float(pixels: "torch.Tensor") -> "torch.Tensor":
    """Convert uint8 of any shape, on any device, to float32 in [-1, 1]."""
    return pixels.float().div_(127.5).sub_(1)


def to_pil(tensor: "torch.Tensor") -> Image.Image:
    """Convert (3, H, W) in [-1, 1], clipped, to an RGB image; the exact inverse of `to_tensor`."""
    pixels = tensor.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def psnr(a: "torch.Tensor", b: "torch.Tensor") -> float:
    """Return the peak signal-to-noise ratio of two images (3, H, W) in [-1, 1], in dB; 100 for equal images."""
    return -10 * math.log10(mse(a[None], b[None]).item())


def mse(a: "torch.Tensor", b: "torch.Tensor") -> "torch.Tensor":
    """Return the mean squared error between images (B, 3, H, W) in [-1, 1], relative to their range, (B,)."""
    return ((a - b) / 2).pow(2).mean(dim=(1, 2, 3)).clamp(min=1e-10)


def psnr_of_mse(errors: "torch.Tensor") -> "torch.Tensor":
    """Return the peak signal-to-noise ratio in dB of mean squared errors relative to the range."""
    return -10 * errors.log10()


def resize(image: Image.Image, size: int, resample: Image.Resampling = BICUBIC) -> Image.Image:
    """Scale the shorter side to `size` pixels, the other in proportion, rounded down."""
    return image if min(image.size) == size else image.resize(_in_proportion(image, size), resample)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Cut out the square of `size` pixels in the middle."""
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def square(image: Image.Image, size: int) -> Image.Image:
    """Scale the shorter side to `size` and cut out the middle square, as CLIP is evaluated (openai/CLIP, clip.py)."""
    return center_crop(resize(image, size), size)


def pad_to_square(image: Image.Image) -> Image.Image:
    """Center an image on a white square of its longer side, so that none of it is cropped."""
    side = max(image.size)
    if image.size == (side, side):
        return image
    padded = Image.new("RGB", (side, side), "white")
    padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return padded


def side_by_side(frames: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """Join images of one height from left to right, with white gaps between them."""
    width = sum(frame.width for frame in frames) + gap * (len(frames) - 1)
    joined = Image.new("RGB", (width, frames[0].height), "white")
    left = 0
    for frame in frames:
        joined.paste(frame, (left, 0))
        left += frame.width + gap
    return joined


def random_crop(image: Image.Image, size: int, rng: random.Random, short: int | None = None) -> Image.Image:
    """Cut out a random square of `size` pixels after scaling (bicubic) the shorter side to `short` pixels.

    Only the crop is computed; it differs from scaling the whole image by the rounding between passes.
    """
    width, height = _in_proportion(image, short or min(image.size))
    left, top = rng.randint(0, width - size), rng.randint(0, height - size)
    if (width, height) == image.size:
        return image.crop((left, top, left + size, top + size))
    across, down = image.width / width, image.height / height
    right, bottom = min((left + size) * across, image.width), min((top + size) * down, image.height)
    return image.resize((size, size), BICUBIC, box=(left * across, top * down, right, bottom))


def save_png(image: Image.Image, path: str | Path, text: dict[str, str] | None = None) -> None:
    """Write a PNG with text chunks, atomically. Of several processes only the first writes."""
    if distributed.rank():
        return
    chunks = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        chunks.add_text(key, value.encode("utf-8", "replace").decode("utf-8"))  # a lone surrogate cannot be stored
    write_atomically(Path(path), lambda temporary: image.save(temporary, "PNG", pnginfo=chunks))


def save_gif(frames: Sequence[Image.Image], path: str | Path, milliseconds: Sequence[int]) -> None:
    """Write an endless animation, atomically; `milliseconds` is how long each frame is shown."""
    if distributed.rank():
        return
    first, *rest = (frame.quantize(dither=Image.Dither.NONE) for frame in frames)

    def write(temporary: Path) -> None:
        first.save(temporary, "GIF", save_all=True, append_images=rest, duration=list(milliseconds), loop=0)

    write_atomically(Path(path), write)


@contextmanager
def _opened(file: str | Path | bytes | BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image and refuse it if its header says that it is too large. Every error becomes BadImage."""
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_formats()) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise BadImage(f"too many pixels: {width}x{height}, at most {max_pixels} (data.max_pixels)")
            yield image
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage("missing file") from None
    except IsADirectoryError:
        raise BadImage("a folder") from None
    except Image.UnidentifiedImageError:
        raise BadImage("not an image") from None
    except Exception as error:  # a broken file makes Pillow's parsers raise nearly anything
        raise BadImage(f"cannot be decoded: {' '.join(str(error).split())[:100] or type(error).__name__}") from None


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # Pillow before 11.3 has no AVIF


def _in_proportion(image: Image.Image, short: int) -> tuple[int, int]:
    side = min(image.size)
    return short * image.width // side, short * image.height // side


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # the image is whole; only the metadata next to it is broken
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale gray levels of 16 or 32 bits, or of floating point, to 8 bits; the transparent value becomes white."""
    pixels = np.array(image).astype(np.float64)
    if not np.isfinite(pixels).all():
        raise BadImage("cannot be decoded: pixels that are not numbers")
    maxima = (65535,) if image.mode.startswith("I;16") else (255, 65535) if image.mode == "I" else (1, 255, 65535)
    low, high = min(pixels.min(), 0), pixels.max()
    top = next((top for top in maxima if low == 0 and high <= top), None)  # None: no usual range, so scale its own
    scaled = pixels * (255 / top) if top else (pixels - low) * (255 / max(high - low, 1e-12))
    if isinstance(image.info.get("transparency"), int):
        scaled[pixels == image.info["transparency"]] = 255
    return Image.fromarray(np.round(scaled).astype(np.uint8))
