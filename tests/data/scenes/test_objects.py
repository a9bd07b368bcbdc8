import numpy as np
import pytest

from dalle_cli.data.scenes import objects
from dalle_cli.data.scenes.objects import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    WHITE,
    MissingFont,
    art,
    font,
    load_object_set,
    sprite,
)


@pytest.fixture
def everyday() -> objects.ObjectSet:
    try:
        return load_object_set("everyday")
    except MissingFont as error:
        pytest.skip(str(error))


def test_shapes_are_all_different_and_need_no_font(monkeypatch):
    monkeypatch.setattr(objects, "FONTS", ())
    masks = {name: np.asarray(art(name, drawn=True))[..., 3] > 128 for name in load_object_set("shapes").names}
    assert masks.keys() == SHAPES.keys()
    for one in masks:
        assert 0.1 < masks[one].mean() < 0.95
        assert all((masks[one] != masks[two]).mean() > 0.02 for two in masks if two != one)


@pytest.mark.parametrize("color", COLORS)
def test_a_tinted_shape_has_the_named_colour(color):
    pixels = sprite("square", 32, color, drawn=True)
    assert pixels.shape == (32, 32, 4)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[16, 16], (*COLORS[color], 255), atol=3)
    assert pixels[0, 0, 3] == 0


def test_sprites_are_shared_and_so_read_only():
    with pytest.raises(ValueError, match="read-only"):
        sprite("circle", 16, "red", drawn=True)[:] = 0


def test_a_texture_changes_the_surface_and_not_the_outline():
    plain, worn = (sprite("circle", 64, "green", texture, drawn=True) for texture in (None, "star"))
    assert np.array_equal(plain[..., 3], worn[..., 3])
    inside = plain[..., 3] == 255
    assert plain[inside, 1].std() < 1 < 20 < worn[inside, 1].std()


def test_colours_are_told_apart():
    for palette in (COLORS, {**BACKGROUNDS, "white": WHITE}):
        colors = np.array(list(palette.values()), dtype=float)
        distances = np.linalg.norm(colors[:, None] - colors, axis=-1) + 1000 * np.eye(len(colors))
        assert distances.min() > 50
    assert set(COLORS) < set(BACKGROUNDS)
    for name in COLORS:  # a red obj shows on a red background
        assert np.linalg.norm(np.subtract(COLORS[name], BACKGROUNDS[name])) > 25


@pytest.mark.parametrize("name", ["shapes", "everyday"])
def test_the_names_of_a_set_are_consistent(name, request):
    if name == "everyday":
        request.getfixturevalue("everyday")
    made = load_object_set(name)
    assert len(made.names) == len(set(made.names))
    assert set(made.textures) <= set(made.names)
    assert set(made.bodies) <= set(made.names)
    assert "chair" not in made.textures


def test_an_unknown_set_is_refused():
    with pytest.raises(ValueError, match="no objects 'emojis'"):
        load_object_set("emojis")


def test_without_a_font_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(objects, "FONTS", ("/nowhere.ttf",))
    monkeypatch.delenv("DALLE_EMOJI_FONT", raising=False)
    font.cache_clear()
    try:
        with pytest.raises(MissingFont, match=r"fonts-noto-color-emoji.*DALLE_EMOJI_FONT.*data\.objects=shapes"):
            font()
    finally:
        font.cache_clear()


def test_a_named_font_that_is_none_is_passed_over(monkeypatch, tmp_path):
    (tmp_path / "font.ttf").write_bytes(b"not a font")
    monkeypatch.setattr(objects, "FONTS", ())
    monkeypatch.setenv("DALLE_EMOJI_FONT", str(tmp_path / "font.ttf"))
    font.cache_clear()
    try:
        with pytest.raises(MissingFont):
            font()
    finally:
        font.cache_clear()


def test_everyday_emoji_are_pictures_that_fill_their_square(everyday):
    for name in everyday.names:
        alpha = np.asarray(art(name))[..., 3]
        assert alpha.shape == (objects.ART, objects.ART)
        ys, xs = np.nonzero(alpha > 16)
        assert max(np.ptp(ys), np.ptp(xs)) > 0.95 * objects.ART, name
        assert (alpha > 128).mean() > 0.08, name


def test_emoji_keep_light_and_dark_when_tinted(everyday):
    own, tinted = (sprite("penguin", 64, color).astype(float) for color in (None, "red"))
    inside = own[..., 3] == 255
    light = [pixels[inside, :3] @ [0.299, 0.587, 0.114] for pixels in (own, tinted)]
    assert np.corrcoef(*light)[0, 1] > 0.9
    assert (tinted[inside, 0] >= tinted[inside, 1]).all()


def test_an_avocado_chair_is_a_chair_in_the_colours_of_an_avocado(everyday):
    chair, worn, avocado = sprite("chair", 64), sprite("chair", 64, texture="avocado"), sprite("avocado", 64)
    assert np.array_equal(chair[..., 3], worn[..., 3])
    own, green, source = (p[p[..., 3] == 255][:, :3].astype(float) for p in (chair, worn, avocado))
    assert np.linalg.norm(green.mean(0) - source.mean(0)) < np.linalg.norm(green.mean(0) - own.mean(0))


def test_emoji_with_names_of_one_word_are_a_part_of_all(everyday):
    names = load_object_set("words").names
    assert set(names) < set(load_object_set("emoji").names)
    assert {"cat", "chair", "avocado"} < set(names)
    assert "teddy bear" not in names
    assert len(names) > 300


def test_all_emoji_are_named_and_everyday_ones_are_among_them(everyday):
    names = load_object_set("emoji").names
    assert len(names) > 1000
    assert set(everyday.names) <= set(names)
