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


def test_the_way_is_that_of_the_paper_for_vectors_of_one_length():
    a, b = torch.nn.functional.normalize(points(2, 4, 16), dim=-1)
    phi = (a * b).sum(dim=1, keepdim=True).acos()
    for part in (0.0, 0.2, 0.5, 1.0):
        wanted = ((1 - part) * phi).sin() / phi.sin() * a + (part * phi).sin() / phi.sin() * b
        torch.testing.assert_close(slerp(a, b, part), wanted)


def test_it_stays_on_the_great_circle_at_even_speed():
    a, b = points(2, 1, 12)
    way = [slerp(a, b, part / 8)[0] for part in range(9)]
    torch.testing.assert_close(way[0], a[0])
    torch.testing.assert_close(way[-1], b[0])
    plane, _ = torch.linalg.qr(torch.cat([a, b]).T)
    steps = []
    for here, there in pairwise(way):
        torch.testing.assert_close(plane @ (plane.T @ there), there)
        steps.append(angle(here, there))
    torch.testing.assert_close(torch.stack(steps), angle(a, b).expand(8) / 8)
    lengths = torch.stack([one.norm() for one in way])
    torch.testing.assert_close(lengths.diff(), ((b.norm() - a.norm()) / 8).expand(8))


def test_each_of_a_batch_may_have_its_own_share_and_any_shape():
    a, b = points(2, 3, 2, 5, 5)
    shares = torch.tensor([0.0, 0.3, 1.0])
    found = slerp(a, b, shares)
    for i in range(3):
        torch.testing.assert_close(found[i], slerp(a[i : i + 1], b[i : i + 1], shares[i].item())[0])
    assert slerp(a.half(), b.half(), 0.5).dtype == torch.float16


@pytest.mark.parametrize("part", [0.0, 0.25, 0.5, 1.0])
def test_ways_without_a_plane(part):
    a = points(2, 6).float()
    torch.testing.assert_close(slerp(a, a, part), a)
    torch.testing.assert_close(slerp(a, 3 * a, part), (1 + 2 * part) * a)
    torch.testing.assert_close(slerp(a, a + 1e-7, part), a)
    around = slerp(a, -a, part)
    torch.testing.assert_close(around.norm(dim=1), a.norm(dim=1))
    for own, there in zip(a.double(), around.double()):
        assert angle(own, there) == pytest.approx(math.pi * part, abs=1e-3)
    nearly = slerp(a, -a + 1e-7, part)
    assert (nearly - around).norm(dim=1).max() < 1e-2
    nothing = slerp(torch.zeros(1, 4), torch.ones(1, 4), part)
    assert nothing.isfinite().all()
    assert nothing.norm() <= 2


def test_a_text_diff_is_the_direction_between_two_texts():
    asked, described = points(2, 3, 8)
    way = text_diff(asked, described)
    torch.testing.assert_close(way.norm(dim=1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(way * (asked - described).norm(dim=1, keepdim=True), asked - described)
    torch.testing.assert_close(text_diff(asked), torch.nn.functional.normalize(asked, dim=1))
    with pytest.raises(ValueError, match="embeds both texts alike"):
        text_diff(asked, asked)


def test_what_is_turned_keeps_its_length_and_comes_nearer():
    z, way = 5 * points(2, 8), text_diff(points(2, 8, seed=1))
    torch.testing.assert_close(rotate_towards(z, way, 0.0), z)
    near = [torch.cosine_similarity(rotate_towards(z, way, part), way, dim=1) for part in (0.0, 0.2, 0.5, 1.0)]
    for before, after in pairwise(near):
        assert (after > before).all()
    torch.testing.assert_close(near[-1], torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(rotate_towards(z, way, 0.3).norm(dim=1), z.norm(dim=1))


def test_fewer_components_are_farther_and_as_long():
    rotation, _ = torch.linalg.qr(points(5, 5))
    spread = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    vectors = points(4000, 5, seed=2) * spread @ rotation + 7
    known = principal_components(vectors)
    assert explained_variance(known, 2) == pytest.approx(13 / 14.25, abs=0.02)
    assert explained_variance(known, 5) == pytest.approx(1)
    z = vectors[:3]
    torch.testing.assert_close(project(z, known, 5), z)
    errors = [(project(z, known, count) - z).norm().item() for count in range(6)]
    assert errors[:5] == sorted(errors[:5], reverse=True)
    assert errors[4] < 1e-6 < errors[3]  # the last one does not vary
    torch.testing.assert_close(project(z, known, 1).norm(dim=1), z.norm(dim=1))
