"""K-means (Lloyd 1982), for codebooks that start as the data."""

import torch
from torch import Tensor

CHUNK = 8192  # points compared with all centers at a time


def kmeans(points: Tensor, count: int, steps: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Centres (count, D) of points (N, D), and the mean squared distance of a point to its own.

    A center that no point is nearest to moves to the point that is farthest from its own. Raises ValueError when there
    are fewer different points than centers.
    """
    generator = torch.Generator(points.device).manual_seed(seed)
    subset = torch.randperm(len(points), generator=generator, device=points.device)[: 32 * count]
    centers = _start(points[subset], count, generator)
    for _ in range(steps):
        distance, nearest = _assign(points, centers)
        sizes = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(centers).index_add_(0, nearest, points)
        centers = sums / sizes.clamp(min=1)[:, None]
        empty = sizes == 0
        centers[empty] = points[distance.argsort(descending=True)[: int(empty.sum())]]
    return centers, _assign(points, centers)[0].mean()


def _start(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return initial centers, sampled by squared distance to those before (Arthur and Vassilvitskii 2007)."""
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


def _assign(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distance to the nearest center, and its index, for every point."""
    nearest = [torch.cdist(part, centers).min(dim=1) for part in points.split(CHUNK)]
    return torch.cat([part.values for part in nearest]).square(), torch.cat([part.indices for part in nearest])
