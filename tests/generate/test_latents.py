import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dalle_cli.generate.latents import explained_variance, project, rotate_towards, slerp, text_diff
from dalle_cli.nn.pca import principal_components


def points(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def angle(a: Tensor, b: Tensor) -> Tensor:
    return torch.atan2((a / a.norm() - b / b.norm()).norm() / 2, (a / a.norm() + b / b.norm()).norm() / 2) * 2


def test_slerp_follows_the_formula():
    a, b = torch.nn.functional.normalize(points(2, 4, 16), dim=-1)
    phi = (a * b).sum(dim=1, keepdim=True).acos()
    for t in (0.0, 0.2, 0.5, 1.0):
        expected = ((1 - t) * phi).sin() / phi.sin() * a + (t * phi).sin() / phi.sin() * b
        torch.testing.assert_close(slerp(a, b, t), expected)


def test_slerp_stays_on_the_great_circle_at_constant_speed():
    a, b = points(2, 1, 12)
    path = [slerp(a, b, t / 8)[0] for t in range(9)]
    torch.testing.assert_close(path[0], a[0])
    torch.testing.assert_close(path[-1], b[0])
    plane, _ = torch.linalg.qr(torch.cat([a, b]).T)
    steps = []
    for before, after in pairwise(path):
        torch.testing.assert_close(plane @ (plane.T @ after), after)
        steps.append(angle(before, after))
    torch.testing.assert_close(torch.stack(steps), angle(a, b).expand(8) / 8)
    norms = torch.stack([point.norm() for point in path])
    torch.testing.assert_close(norms.diff(), ((b.norm() - a.norm()) / 8).expand(8))


def test_slerp_takes_batches_of_any_shape():
    a, b = points(2, 3, 2, 5, 5)
    t = torch.tensor([0.0, 0.3, 1.0])
    result = slerp(a, b, t)
    for i in range(3):
        torch.testing.assert_close(result[i], slerp(a[i : i + 1], b[i : i + 1], t[i].item())[0])
    assert slerp(a.half(), b.half(), 0.5).dtype == torch.float16


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_of_equal_and_opposite_directions(t):
    a = points(2, 6).float()
    torch.testing.assert_close(slerp(a, a, t), a)
    torch.testing.assert_close(slerp(a, 3 * a, t), (1 + 2 * t) * a)
    torch.testing.assert_close(slerp(a, a + 1e-7, t), a)
    around = slerp(a, -a, t)
    torch.testing.assert_close(around.norm(dim=1), a.norm(dim=1))
    for before, after in zip(a.double(), around.double()):
        assert angle(before, after) == pytest.approx(math.pi * t, abs=1e-3)
    nearly = slerp(a, -a + 1e-7, t)
    assert (nearly - around).norm(dim=1).max() < 1e-2
    zero = slerp(torch.zeros(1, 4), torch.ones(1, 4), t)
    assert zero.isfinite().all()
    assert zero.norm() <= 2


def test_text_diff_is_a_unit_direction():
    target, baseline = points(2, 3, 8)
    path = text_diff(target, baseline)
    torch.testing.assert_close(path.norm(dim=1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(path * (target - baseline).norm(dim=1, keepdim=True), target - baseline)
    torch.testing.assert_close(text_diff(target), torch.nn.functional.normalize(target, dim=1))
    with pytest.raises(ValueError, match="embeds both texts alike"):
        text_diff(target, target)


def test_rotation_keeps_the_norm():
    z, path = 5 * points(2, 8), text_diff(points(2, 8, seed=1))
    torch.testing.assert_close(rotate_towards(z, path, 0.0), z)
    near = [torch.cosine_similarity(rotate_towards(z, path, t), path, dim=1) for t in (0.0, 0.2, 0.5, 1.0)]
    for before, after in pairwise(near):
        assert (after > before).all()
    torch.testing.assert_close(near[-1], torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(rotate_towards(z, path, 0.3).norm(dim=1), z.norm(dim=1))


def test_projection_error_falls_with_components():
    rotation, _ = torch.linalg.qr(points(5, 5))
    spread = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    vectors = points(4000, 5, seed=2) * spread @ rotation + 7
    pca = principal_components(vectors)
    assert explained_variance(pca, 2) == pytest.approx(13 / 14.25, abs=0.02)
    assert explained_variance(pca, 5) == pytest.approx(1)
    z = vectors[:3]
    torch.testing.assert_close(project(z, pca, 5), z)
    errors = [(project(z, pca, count) - z).norm().item() for count in range(6)]
    assert errors[:5] == sorted(errors[:5], reverse=True)
    assert errors[4] < 1e-6 < errors[3]  # the last one does not vary
    torch.testing.assert_close(project(z, pca, 1).norm(dim=1), z.norm(dim=1))
