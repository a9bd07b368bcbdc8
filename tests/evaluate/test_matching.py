import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli.data.scenes.grammar import Scene, SceneObject
from dalle_cli.data.scenes.objects import BACKGROUNDS, load_object_set
from dalle_cli.data.scenes.render import PlacedObject, render
from dalle_cli.evaluate.matching import CANVAS, WIDTH, ImageOnBackground, Renderings, blurred, path_position, similarity

SHAPES = load_object_set("shapes")
WHITE = torch.ones(3)


def drawn(
    obj: SceneObject, x: float, y: float, size: float, background: str | None = None, pixels: int = 64
) -> np.ndarray:
    return render(Scene((obj,), None, background), [PlacedObject(obj, x, y, size)], pixels, drawn=True)


def rendering(obj: SceneObject, background: torch.Tensor = WHITE) -> torch.Tensor:
    return Renderings(SHAPES).on(background, (obj,))


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_background_is_found_behind_a_large_object(background):
    image = ImageOnBackground(drawn(SceneObject("square", "purple"), 0.4375, 0.4375, 0.875, background))
    assert (image.background * 255).round().int().tolist() == list(BACKGROUNDS[background])
    assert image.uniformity > 0.5


def test_size_and_type_of_the_image_do_not_matter():
    large = drawn(SceneObject("star", "blue"), 0.5, 0.5, 0.625, "grey", pixels=128)
    tensor = torch.from_numpy(large.copy()).permute(2, 0, 1).float() / 127.5 - 1
    first, *others = (ImageOnBackground(image) for image in (large, Image.fromarray(large), tensor))
    assert first.difference.shape == (3, CANVAS, CANVAS)
    for other in others:
        torch.testing.assert_close(other.difference, first.difference, atol=1e-5, rtol=0)
    small = ImageOnBackground(drawn(SceneObject("star", "blue"), 0.5, 0.5, 0.625, "grey", pixels=64))
    assert (small.difference - first.difference).square().mean() < 0.01 * small.difference.square().mean()


def test_resampling_preserves_the_border():
    image = ImageOnBackground(np.full((100, 100, 3), 90, dtype=np.uint8))
    assert image.difference.abs().max() < 1e-5
    assert image.uniformity == 1


def test_window_of_an_object_equals_its_rendering():
    obj = SceneObject("heart", "red")
    window = ImageOnBackground(drawn(obj, 0.5, 0.5, 0.75)).windows(torch.tensor([[32.0, 32.0, 48.0]]), (1.0,), (0.0,))
    assert window.shape == (1, 1, 3, WIDTH, WIDTH)
    assert similarity(window, rendering(obj)).item() > 0.999


def test_windows_extend_over_the_border():
    obj = SceneObject("square", "red")
    window = ImageOnBackground(drawn(obj, 0.1875, 0.1875, 0.375)).windows(
        torch.tensor([[12.0, 12.0, 24.0]]), (1.0,), (0.0,)
    )
    assert similarity(window, rendering(obj)).item() > 0.99


@pytest.mark.parametrize(("x", "y", "size"), [(0.3, 0.4, 0.3), (0.61, 0.55, 0.5), (0.5, 0.47, 0.9)])
def test_search_and_refinement_locate_the_object(x, y, size):
    obj = SceneObject("star", "blue")
    objects = rendering(obj)
    image = ImageOnBackground(drawn(obj, x, y, size, pixels=256))
    boxes, windows, similar = image.refine(image.search(objects), objects)
    best = int(similar.argmax())
    assert similar[best] > 0.98
    np.testing.assert_allclose(boxes[best] / CANVAS, [x, y, size], atol=0.015)
    torch.testing.assert_close(similarity(windows, objects), similar)


def test_best_near_finds_an_object_next_to_a_box():
    names = ("circle", "star", "arrow")
    objects = Renderings(SHAPES).on(WHITE, tuple(SceneObject(name, "green") for name in names))
    image = ImageOnBackground(drawn(SceneObject("arrow", "green"), 0.5, 0.5, 0.5))
    index, similar = image.best_near(torch.tensor([34.5, 30.0, 36.0]), objects, count=2)
    assert names[int(index[similar.argmax()])] == "arrow"
    assert similar.max() > 0.97


def test_renderings_are_differences_from_the_background():
    obj = SceneObject("square", "red")
    middle = rendering(obj, torch.tensor([0.25, 0.5, 0.75]))[0, :, WIDTH // 2, WIDTH // 2]
    np.testing.assert_allclose(middle, np.array([222, 45, 38]) / 255 - [0.25, 0.5, 0.75], atol=0.01)
    object_set = Renderings(SHAPES).all_on(WHITE, SceneObject("", "red"))
    torch.testing.assert_close(object_set[SHAPES.names.index("square")], rendering(obj)[0])


def test_similarity_is_one_minus_the_differing_energy():
    torch.manual_seed(0)
    window, obj = torch.randn(2, 3, WIDTH, WIDTH)
    expected = 1 - (window - obj).square().sum() / (window.square().sum() + obj.square().sum())
    torch.testing.assert_close(similarity(window, obj[None])[0], expected)
    assert similarity(obj, obj[None]).item() == pytest.approx(1)
    assert similarity(obj / 2, obj[None]).item() == pytest.approx(0.8)  # too faint: 2 g / (1 + g^2)


def test_path_position_is_the_fraction_of_the_path():
    obj, other = rendering(SceneObject("circle", "red"))[0], rendering(SceneObject("star", "red"))[0]
    for fraction in (0.0, 0.3, 1.0):
        whole, half = path_position(obj + fraction * (other - obj), obj, other[None], 0.003)
        assert whole.item() == pytest.approx(fraction, abs=1e-5)
        assert half.item() == pytest.approx(fraction, abs=1e-5)
    left = obj.clone()
    left[..., : WIDTH // 2] = other[..., : WIDTH // 2]
    whole, half = path_position(left, obj, other[None], 0.003)
    assert whole.item() == pytest.approx(0.5, abs=0.1)
    assert half.item() == pytest.approx(1)


def test_indistinct_renderings_have_no_path():
    obj = rendering(SceneObject("circle", "red"))[0]
    whole, half = path_position(obj * 0.9, obj, obj[None] * 0.97, 0.003)
    assert whole.item() == half.item() == -torch.inf


def test_blur_removes_detail_and_preserves_the_sum():
    obj = rendering(SceneObject("star", "red"))
    soft = blurred(obj, 1.0)
    assert soft.diff(dim=-1).abs().max() < 0.7 * obj.diff(dim=-1).abs().max()
    assert soft.sum().item() == pytest.approx(obj.sum().item(), rel=0.01)
    assert blurred(obj, 0.0) is obj
