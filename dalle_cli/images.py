"""Pictures at the border: files to RGB, RGB to tensors and back, PNG files with text, contact sheets.

Inside the program a picture is a float32 tensor (3, H, W) in [-1, 1]; this is the only module that reads or writes
picture files. Torch is imported only where tensors are made.
"""

import functools
import io
import math
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from . import distributed
from .files import write_atomically

if TYPE_CHECKING:
    import torch

BICUBIC, LANCZOS, BOX = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BOX

# Formats whose header states the size of what will be decoded. Left out on purpose: icons (a small header may hold a
# huge picture) and EPS (decoded by running a program).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF")
EXTENSIONS = frozenset(
    ".jpg .jpeg .png .webp .gif .bmp .tif .tiff .avif .jp2 .jpx .ppm .pgm .pbm .pnm".split()  # noqa: SIM905
)

# `decode` compares the header's size with its own limit, so Pillow's fixed one (which warns, and is global) is off.
Image.MAX_IMAGE_PIXELS = None

# Pillow's remarks on odd metadata, one for every other picture of the web.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_TURNS = {  # EXIF orientation -> what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(ValueError):
    """A file that cannot be used as a picture; the message is a short reason, `reason` or `reason: detail`."""


def decode(
    file: str | Path | bytes | BinaryIO, max_pixels: int = 50_000_000, at_least: int | None = None
) -> Image.Image:
    """Read a picture as RGB, upright, transparency on white; the first frame of an animation.

    max_pixels: larger pictures are refused by their header, before anything is decoded. at_least: pixels of the
    shorter side below which a JPEG must not be reduced while decoding (1/2, 1/4 or 1/8 in its own transform, which
    is several times faster); None decodes at full size. Raises BadImage.
    """
    with _opened(file, max_pixels) as image:
        if at_least:
            image.draft("RGB", (at_least, at_least))
        image.load()
        turn = _TURNS.get(_orientation(image))
        picture = _rgb(image)
        return picture.transpose(turn) if turn is not None else picture


def open_image(path: str | Path, label: str = "") -> Image.Image:
    """Read an image file as RGB. Raises BadImage, whose message names the file, after a label such as `mask`."""
    try:
        return decode(path)
    except BadImage as error:
        raise BadImage(f"{label} {path}: {error}".lstrip()) from None


def clear(file: str | Path, max_pixels: int = 50_000_000) -> Image.Image | None:
    """A picture as RGBA, upright, or None where all of it is opaque. Raises BadImage."""
    with _opened(file, max_pixels) as image:
        if not image.has_transparency_data:
            return None
        turn = _TURNS.get(_orientation(image))
        found = image.convert("RGBA")
    found = found.transpose(turn) if turn is not None else found
    return found if np.asarray(found.getchannel("A")).min() < 255 else None


def transparent(file: str | Path) -> "np.ndarray | None":
    """Where a picture, upright, is not wholly opaque: bool (H, W), or None where all of it is. Raises BadImage."""
    found = clear(file)
    return None if found is None else np.asarray(found)[:, :, 3] < 255


def to_tensor(image: Image.Image) -> "torch.Tensor":
    """RGB picture -> float32 (3, H, W) in [-1, 1]."""
    return to_float(to_bytes(image))


def to_bytes(image: Image.Image) -> "torch.Tensor":
    """RGB picture -> uint8 (3, H, W)."""
    import torch

    return torch.from_numpy(np.array(np.asarray(image).transpose(2, 0, 1), order="C"))


def to_float(pixels: "torch.Tensor") -> "torch.Tensor":
    """uint8 -> float32 in [-1, 1], of any shape and on any device."""
    return pixels.float().div_(127.5).sub_(1)


def to_pil(tensor: "torch.Tensor") -> Image.Image:
    """(3, H, W) in [-1, 1], clipped -> RGB picture; exact inverse of `to_tensor`."""
    pixels = tensor.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def psnr(a: "torch.Tensor", b: "torch.Tensor") -> float:
    """Of two pictures in [-1, 1], in dB; 100 for equal ones."""
    return -10 * math.log10(max(((a - b) / 2).pow(2).mean().item(), 1e-10))


def resize(image: Image.Image, size: int, resample: Image.Resampling = BICUBIC) -> Image.Image:
    """Shorter side to `size`, the other in proportion, rounded down."""
    return image if min(image.size) == size else image.resize(_in_proportion(image, size), resample)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The square of side `size` in the middle."""
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def square(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size`, the middle square: what CLIP is evaluated on (openai/CLIP, clip/clip.py)."""
    return center_crop(resize(image, size), size)


def random_crop(image: Image.Image, size: int, rng: random.Random, short: int | None = None) -> Image.Image:
    """A square of side `size`, anywhere in the picture, resized before (bicubic) to a shorter side of `short`.

    Only the part that is kept is computed, which differs from resizing it all by the rounding between passes.
    """
    width, height = _in_proportion(image, short or min(image.size))
    left, top = rng.randint(0, width - size), rng.randint(0, height - size)
    if (width, height) == image.size:
        return image.crop((left, top, left + size, top + size))
    across, down = image.width / width, image.height / height
    right, bottom = min((left + size) * across, image.width), min((top + size) * down, image.height)
    return image.resize((size, size), BICUBIC, box=(left * across, top * down, right, bottom))


def save_png(image: Image.Image, path: str | Path, text: dict[str, str] | None = None) -> None:
    """Write a PNG with text chunks so that the file is either whole or not there; of several processes, the first."""
    if distributed.rank():
        return
    chunks = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        chunks.add_text(key, value.encode("utf-8", "replace").decode("utf-8"))  # a lone surrogate cannot be stored
    write_atomically(Path(path), lambda temporary: image.save(temporary, "PNG", pnginfo=chunks))


def save_gif(frames: Sequence[Image.Image], path: str | Path, milliseconds: Sequence[int]) -> None:
    """Write an animation that begins again at its end, each frame shown for its time; otherwise as `save_png`."""
    if distributed.rank():
        return
    first, *rest = (frame.quantize(dither=Image.Dither.NONE) for frame in frames)

    def write(temporary: Path) -> None:
        first.save(temporary, "GIF", save_all=True, append_images=rest, duration=list(milliseconds), loop=0)

    write_atomically(Path(path), write)


def sheet(
    images: Sequence[Image.Image], captions: Sequence[str] | None = None, columns: int | None = None
) -> Image.Image:
    """Contact sheet: the pictures in rows, each with its caption below, wrapped to four lines at most.

    columns: default, as many as make the sheet about square.
    """
    assert images, "a sheet of nothing"
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    gap, line = 4, 14
    font = ImageFont.load_default(size=11)
    width = max(max(image.width for image in images), 96 if captions else 0)
    lines = [_wrap(caption, width, font) for caption in captions or [""] * len(images)]
    rows = [range(i, min(i + columns, len(images))) for i in range(0, len(images), columns)]
    heights = [max(images[i].height for i in row) + line * max(len(lines[i]) for i in row) for row in rows]
    page = Image.new(
        "RGB", (columns * (width + gap) + gap, sum(heights) + gap * (len(rows) + 1)), "white"
    )  # fmt: skip
    draw = ImageDraw.Draw(page)
    top = gap
    for row, height in zip(rows, heights):
        below = top + max(images[i].height for i in row)
        for column, i in enumerate(row):
            left = gap + column * (width + gap)
            page.paste(images[i], (left + (width - images[i].width) // 2, top))
            for number, words in enumerate(lines[i]):
                draw.text((left, below + number * line), words, fill="black", font=font)
        top += height + gap
    return page


@contextmanager
def _opened(file: str | Path | bytes | BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    """A picture whose header has been read and says that it is not too large; what then goes wrong is a BadImage."""
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
    except Exception:  # the picture is whole; only what a camera wrote beside it is broken
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greyscale of 16 or 32 bits, or floating point, scaled to 8 bits; its transparent value becomes white."""
    pixels = np.array(image).astype(np.float64)
    if not np.isfinite(pixels).all():
        raise BadImage("cannot be decoded: pixels that are not numbers")
    tops = (65535,) if image.mode.startswith("I;16") else (255, 65535) if image.mode == "I" else (1, 255, 65535)
    low, high = min(pixels.min(), 0), pixels.max()
    top = next((top for top in tops if low == 0 and high <= top), None)  # None: no known range, so its own
    scaled = pixels * (255 / top) if top else (pixels - low) * (255 / max(high - low, 1e-12))
    if isinstance(image.info.get("transparency"), int):
        scaled[pixels == image.info["transparency"]] = 255
    return Image.fromarray(np.round(scaled).astype(np.uint8))


def _wrap(caption: str, width: int, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", most: int = 4) -> list[str]:
    # What cannot be drawn (lone surrogates; without FreeType all but Latin-1) is shown as a question mark.
    encoding = "utf-8" if isinstance(font, ImageFont.FreeTypeFont) else "latin-1"
    caption = caption[:1000].encode(encoding, "replace").decode(encoding)
    lines = [""]
    for word in "".join(c if c.isprintable() else " " for c in caption).split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:  # a word longer than the line is broken anywhere
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1].rstrip() + "…"]
    return [line for line in lines if line]
