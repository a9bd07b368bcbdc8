import numpy as np
import torch
from PIL import Image

from dalle_cli.generate.denoising_strip import MAX_IMAGES, MAX_STEPS, DenoisingStrip

OUTLINE = 221  # gray level around the images of a sheet


def colors(path):
    return {tuple(pixel) for pixel in np.asarray(Image.open(path)).reshape(-1, 3).tolist()}


def test_first_batch_has_a_row_per_image(tmp_path):
    strip = DenoisingStrip(str(tmp_path / "new" / "strip.png"))
    for t in (900, 500, 100, 900, 500):  # the last two are of another batch
        strip(t, torch.full((2, 3, 8, 8), t / 1000 if t != 900 or len(strip.steps) < 3 else -1.0))
    strip.save()
    assert len(strip.steps) == 3
    page = Image.open(tmp_path / "new" / "strip.png")
    assert page.size == (3 * 136 + 8, 2 * 136 + 8)  # enlarged to 128 px
    assert colors(tmp_path / "new" / "strip.png") == {(level,) * 3 for level in (255, 242, 191, 140, OUTLINE)}


def test_many_steps_are_thinned_out_and_images_limited(tmp_path):
    strip = DenoisingStrip(str(tmp_path / "strip.png"))
    for t in reversed(range(100)):
        strip(t, torch.full((20, 3, 4, 4), t / 50 - 1))
    strip.save()
    page = Image.open(tmp_path / "strip.png")
    assert page.size == (MAX_STEPS * 136 + 8, MAX_IMAGES * 136 + 8)
    shown = {value[0] for value in colors(tmp_path / "strip.png")}
    assert {0, round((99 / 50 - 1 + 1) * 127.5)} <= shown
    assert len(shown - {OUTLINE}) == MAX_STEPS + 1


def test_nothing_is_written_without_steps(tmp_path):
    DenoisingStrip(str(tmp_path / "strip.png")).save()
    assert not (tmp_path / "strip.png").exists()
