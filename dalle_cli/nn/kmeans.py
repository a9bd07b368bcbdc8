"""K-means (Lloyd 1982), for codes that start where the data are."""

import torch
from torch import Tensor

CHUNK = 8192  # points compared with all centres at a time


def kmeans(points: Tensor, count: int, steps: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Centres (count, D) of points (N, D), and the mean squared distance of a point to its own.

    A centre that no point is nearest to moves to the point that is farthest from its own. Raises ValueError when there
    are fewer different points than centres.
    """
    generator = torch.Generator(points.device).manual_seed(seed)
    some = torch.randperm(len(points), generator=generator, device=points.device)[: 32 * count]
    centres = _start(points[some], count, generator)
    for _ in range(steps):
        distance, nearest = _assign(points, centres)
        sizes = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = sums / sizes.clamp(min=1)[:, None]
        empty = sizes == 0
        centres[empty] = points[distance.argsort(descending=True)[: int(empty.sum())]]
    return centres, _assign(points, centres)[0].mean()


def _start(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Points that lie apart: each is drawn by its squared distance to those before (Arthur and Vassilvitskii 2007)."""
    chosen: list[Tensor] = []
    distance = torch.ones(len(points), device=points.device)
    square = points.square().sum(dim=1)
    for number in range(count):
        if not distance.any():
            raise ValueError(f"{number} different points make no {count} clusters")
        chosen.append(points[torch.multinomial(distance, 1, generator=generator)[0]])
        latest = (square - 2 * points @ chosen[-1] + chosen[-1].square().sum()).clamp(min=0)
        latest[latest <= 1e-6 * square] = 0  # what is left of a point's distance to itself is rounding
        distance = torch.minimum(distance, latest) if number else latest
    return torch.stack(chosen)


def _assign(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance to the nearest centre, and its number, for every point."""
    found = [torch.cdist(part, centres).min(dim=1) for part in points.split(CHUNK)]
    return torch.cat([one.values for one in found]).square(), torch.cat([one.indices for one in found])
