import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont

from dalle_cli import contact_sheet as module
from dalle_cli import fonts
from dalle_cli.contact_sheet import GAP, LINE, TITLE_LINE, Row, cell_size, contact_sheet, fit, grid, pages, save_pages

RED, BLUE = (255, 0, 0), (0, 0, 255)


def square(color="red", width=32, height=None):
    return Image.new("RGB", (width, height or width), color)


def count(page, color):
    return int((np.asarray(page) == color).all(axis=2).sum())


def test_small_images_are_enlarged_by_whole_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    page = np.asarray(contact_sheet([Image.fromarray(pixels)]))
    assert page.shape == (128 + 2 * GAP, 128 + 2 * GAP, 3)
    assert (page[GAP:-GAP, GAP:-GAP] == pixels.repeat(4, axis=0).repeat(4, axis=1)).all()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(32, 32)], (128, 128)),
        ([(48, 48)], (144, 144)),
        ([(200, 100)], (200, 100)),
        ([(1000, 1000)], (256, 256)),
        ([(16, 32)], (128, 256)),
        ([(64, 64), (64, 64), (3000, 20)], (128, 128)),  # one large image does not widen the others
        ([], (128, 128)),
    ],
)
def test_cells_have_the_size_of_the_typical_image(sizes, expected):
    assert cell_size([Image.new("RGB", size) for size in sizes]) == expected


def test_images_fit_their_cell():
    assert fit(square(width=1000, height=500), (256, 256)).size == (256, 128)
    assert fit(square(width=4, height=8), (128, 128)).size == (64, 128)
    assert fit(square(width=4000, height=2), (128, 128)).size == (128, 1)


def test_layout_of_rows_captions_and_titles():
    cells = [(square("red"), "one"), (square("blue"), "words " * 60), (None, "failed")]
    (page,) = pages([Row(cells, "a title"), Row(cells[:1])])
    assert page.width == 3 * (128 + GAP) + GAP
    assert page.height == GAP + TITLE_LINE + (128 + 4 * LINE + GAP) + (128 + LINE + GAP)
    assert (count(page, RED), count(page, BLUE)) == (2 * 128 * 128, 128 * 128)
    pixels = np.asarray(page)
    assert pixels[GAP : GAP + TITLE_LINE, :100].min() < 128
    below = pixels[GAP + TITLE_LINE + 128 : GAP + TITLE_LINE + 128 + LINE]
    assert below[:, : GAP + 128].min() < 128  # a caption stays below its own cell
    gap = pixels[GAP + TITLE_LINE :, GAP + 128 + 1 : GAP + 128 + GAP - 1]
    assert gap.min() == 255


def test_long_rows_continue_on_the_next_line():
    (page,) = pages([Row([(square(), "")] * 20)])
    assert page.width == 16 * (128 + GAP) + GAP
    assert count(page, RED) == 20 * 128 * 128


def test_many_images_take_several_pages(tmp_path):
    files = []
    for i in range(3):
        square(width=16).save(tmp_path / f"{i}.png")
        files.append(tmp_path / f"{i}.png")
    rows = grid([(files[i % 3], str(i)) for i in range(250)])
    paths = save_pages(rows, tmp_path / "sheet.png")
    assert [path.name for path in paths] == ["sheet.png", "sheet-2.png", "sheet-3.png"]
    assert [count(Image.open(path), RED) // 128**2 for path in paths] == [100, 100, 50]


def test_nothing_makes_no_page(tmp_path):
    assert save_pages([Row([])], tmp_path / "none.png") == []
    assert not (tmp_path / "none.png").exists()


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "text.png").write_text("words")
    with pytest.raises(module.images.BadImage, match=r"text\.png: not an image"):
        save_pages([Row([(tmp_path / "text.png", "")])], tmp_path / "sheet.png")


@given(st.lists(st.text(st.characters(codec=None), max_size=80), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_captions_of_any_unicode(captions):
    assert contact_sheet([square(width=24)] * len(captions), captions).width > 24


def test_captions_in_the_plainest_font(monkeypatch):
    plain = ImageFont.load_default_imagefont()
    fonts.default_font.cache_clear()
    monkeypatch.setattr(ImageFont, "load_default", lambda size=None: plain)
    try:
        assert contact_sheet([square()], ["naive 猫 🐈"]).height > 128 + LINE
    finally:
        fonts.default_font.cache_clear()


def test_captions_in_scripts_of_installed_fonts(monkeypatch):
    """A character of another font is drawn by that font: here the default one stands in for it."""
    shown = []
    real = fonts._load
    monkeypatch.setattr(fonts, "_drawable", lambda c: (c, "other.ttf" if c == "猫" else ""))
    monkeypatch.setattr(fonts, "_load", lambda path, size: shown.append(path) or fonts.default_font(size))
    contact_sheet([square()], ["a 猫"])
    assert set(shown) == {"other.ttf"}
    assert real is not fonts._load
