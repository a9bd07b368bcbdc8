import random

import numpy as np
import pytest

from dalle_cli.data.scenes.grammar import KINDS, RELATIONS, Scene, SceneObject, invent
from dalle_cli.data.scenes.objects import BACKGROUNDS, COLORS, MissingFont, load_object_set
from dalle_cli.data.scenes.render import PlacedObject, place, render, signboard

SHAPES = load_object_set("shapes")
RED, BLUE = SceneObject("square", "red"), SceneObject("circle", "blue")


def near(pixels: np.ndarray, color: str) -> np.ndarray:
    return (np.abs(pixels.astype(int) - COLORS[color]) < 6).all(-1)


def centre(pixels: np.ndarray, color: str) -> tuple[float, float]:
    """x and y of the middle of all pixels of a tint, as shares of the canvas."""
    ys, xs = np.nonzero(near(pixels, color))
    return xs.mean() / pixels.shape[1], ys.mean() / pixels.shape[0]


@pytest.mark.parametrize("background", [None, *BACKGROUNDS])
def test_the_background_is_the_named_colour(background):
    scene = Scene((RED,), None, background)
    pixels = render(scene, [PlacedObject(RED, 0.5, 0.5, 0.5)], 64, drawn=True)
    assert pixels.shape == (64, 64, 3)
    assert pixels.dtype == np.uint8
    assert tuple(pixels[0, 0]) == (BACKGROUNDS[background] if background else (255, 255, 255))
    assert near(pixels, "red")[32, 32]


@pytest.mark.parametrize("size", [64, 96, 256])
def test_things_stand_where_they_are_placed(size):
    pixels = render(
        Scene((RED, BLUE)), [PlacedObject(RED, 0.3, 0.25, 0.4), PlacedObject(BLUE, 0.7, 0.75, 0.4)], size, drawn=True
    )
    np.testing.assert_allclose(centre(pixels, "red"), (0.3, 0.25), atol=0.015)
    np.testing.assert_allclose(centre(pixels, "blue"), (0.7, 0.75), atol=0.015)
    assert near(pixels, "red").mean() == pytest.approx((0.84 * 0.4) ** 2, rel=0.15)  # edges are blended


def test_what_would_stand_outside_is_moved_in():
    pixels = render(Scene((RED,)), [PlacedObject(RED, 1.0, 0.0, 0.5)], 64, drawn=True)
    np.testing.assert_allclose(centre(pixels, "red"), (0.75, 0.25), atol=0.02)


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_are_drawn(relation):
    for seed in range(20):
        scene = Scene((RED, BLUE), relation)
        pixels = render(scene, place(scene, random.Random(seed)), 64, drawn=True)
        (x, y), (u, v) = centre(pixels, "red"), centre(pixels, "blue")
        distance = {"left of": u - x, "right of": x - u, "above": v - y, "below": y - v}[relation]
        aside = abs(v - y) if relation in ("left of", "right of") else abs(u - x)
        assert distance > 0.25
        assert distance > 2 * aside


def test_places_are_apart_and_inside():
    for seed in range(300):
        rng = random.Random(seed)
        scene = invent(rng, SHAPES, KINDS, 0.4, 0.3)
        placed = place(scene, rng)
        assert [one.obj for one in placed] == [obj for obj in scene.objects for _ in range(obj.count)]
        for i, one in enumerate(placed):
            for value in (one.x, one.y):
                assert one.size / 2 - 1e-9 <= value <= 1 - one.size / 2 + 1e-9
            for two in placed[:i]:
                apart = max(abs(one.x - two.x), abs(one.y - two.y))
                assert apart >= (one.size + two.size) / 2 - 1e-9


def test_without_a_relation_the_order_is_free():
    scene = Scene((RED, BLUE))
    sides = set()
    for seed in range(40):
        first, second = place(scene, random.Random(seed))
        across, down = second.x - first.x, second.y - first.y
        sides.add(("right" if across > 0 else "left") if abs(across) > abs(down) else "below" if down > 0 else "above")
    assert sides == {"left", "right", "above", "below"}


def test_signs_say_different_words():
    boards = {word: signboard("square", word, 96, drawn=True) for word in ("cat", "bat", "horses")}
    assert all(board.shape == (96, 96, 4) for board in boards.values())
    assert (boards["cat"] != boards["bat"]).any()
    for board in boards.values():
        inner = board[12:84, 12:84, :3].mean(-1)
        assert inner.max() > 240
        assert inner.min() < 120  # dark letters on a light board
        dark = np.nonzero((inner < 150).any(0))[0]
        assert dark.min() > 0  # the word ends before the board does
        assert dark.max() < inner.shape[1] - 1


def test_emoji_are_drawn_over_the_background():
    try:
        load_object_set("everyday")
    except MissingFont as error:
        pytest.skip(str(error))
    scene = Scene((SceneObject("tomato"),), None, "blue")
    pixels = render(scene, place(scene, random.Random(0)), 64).astype(int)
    assert (pixels == BACKGROUNDS["blue"]).all(-1).mean() > 0.2
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 100) & (pixels[..., 2] < 100)
    assert red.mean() > 0.15


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_fixed_positions_do_not_vary(kind):
    rng = random.Random(0)
    scenes = [invent(rng, SHAPES, {kind: 1.0}, 0, 0) for _ in range(60)]
    places = {tuple((one.x, one.y, one.size) for one in place(scene, rng, random_positions=False)) for scene in scenes}
    scattered = {tuple((one.x, one.y, one.size) for one in place(scene, rng)) for scene in scenes}
    alike = {"single": 1, "texture": 1, "sign": 1, "pair": 1, "relation": 4, "count": 2}  # two or three of a obj
    assert len(places) == alike[kind] < len(scattered)
