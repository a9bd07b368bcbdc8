import numpy as np
import torch
from PIL import Image

from dalle_cli.generate.denoising_strip import MAX_IMAGES, MAX_STEPS, DenoisingStrip


def colours(path):
    return {tuple(pixel) for pixel in np.asarray(Image.open(path)).reshape(-1, 3).tolist()}


def test_the_first_pictures_steps_are_shown_in_a_row_each(tmp_path):
    strip = DenoisingStrip(str(tmp_path / "new" / "strip.png"))
    for t in (900, 500, 100, 900, 500):  # the last two are of other pictures
        strip(t, torch.full((2, 3, 8, 8), t / 1000 if t != 900 or len(strip.steps) < 3 else -1.0))
    strip.save()
    assert len(strip.steps) == 3
    page = Image.open(tmp_path / "new" / "strip.png")
    assert page.size == (3 * 136 + 8, 2 * 136 + 8)  # enlarged to 128 px
    assert colours(tmp_path / "new" / "strip.png") == {(255,) * 3, (242,) * 3, (191,) * 3, (140,) * 3}


def test_of_many_steps_and_pictures_some_are_shown_with_the_first_and_the_last(tmp_path):
    strip = DenoisingStrip(str(tmp_path / "strip.png"))
    for t in reversed(range(100)):
        strip(t, torch.full((20, 3, 4, 4), t / 50 - 1))
    strip.save()
    page = Image.open(tmp_path / "strip.png")
    assert page.size == (MAX_STEPS * 136 + 8, MAX_IMAGES * 136 + 8)
    shown = {value[0] for value in colours(tmp_path / "strip.png")}
    assert {0, round((99 / 50 - 1 + 1) * 127.5)} <= shown
    assert len(shown) == MAX_STEPS + 1


def test_nothing_is_written_where_nothing_was_drawn(tmp_path):
    DenoisingStrip(str(tmp_path / "strip.png")).save()
    assert not (tmp_path / "strip.png").exists()
