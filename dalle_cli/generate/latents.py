"""Ways through the space of CLIP embeddings: great circles, text diffs, components (Ramesh et al. 2022, section 3).

Shapes: B vectors of any shape, `e` numbers of an embedding. What is turned or reduced keeps its length, as a decoder
has seen embeddings of the usual lengths alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn.pca import Components

PARALLEL = 1e-4  # sine of the angle below which two directions have no plane of their own in float32


def slerp(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    """From a (at share 0) to b (at 1) along the great circle, at even speed. a, b: (B, ...); share: number or (B,).

    Directions u, v are sin((1 - share) angle) / sin(angle) u + sin(share angle) / sin(angle) v; lengths change evenly
    too. In the limit of equal directions that is the straight line; for opposite ones no great circle is meant, and one
    of them is taken, always the same.
    """
    x, y = a.flatten(1).double(), b.flatten(1).double()
    part = torch.as_tensor(share, dtype=torch.float64, device=x.device).expand(len(x))[:, None]
    u, v = F.normalize(x, dim=1), F.normalize(y, dim=1)
    cosine = (u * v).sum(dim=1, keepdim=True).clamp(-1, 1)
    angle = cosine.acos()
    sine = angle.sin()
    plane = sine > PARALLEL
    safe = torch.where(plane, sine, 1.0)
    arc = ((1 - part) * angle).sin() / safe * u + (part * angle).sin() / safe * v
    turn = torch.pi * part
    around = turn.cos() * u + turn.sin() * _across(u)
    direction = torch.where(plane, arc, torch.where(cosine < -0.5, around, torch.lerp(u, v, part)))
    length = torch.lerp(x.norm(dim=1, keepdim=True), y.norm(dim=1, keepdim=True), part)
    return (length * direction).view_as(a).to(a.dtype)


def _across(unit: Tensor) -> Tensor:
    """A unit vector perpendicular to each row: the axis that the row has least of, made perpendicular."""
    axis = F.one_hot(unit.abs().argmin(dim=1), unit.shape[1]).to(unit)
    return F.normalize(axis - (axis * unit).sum(dim=1, keepdim=True) * unit, dim=1)


def text_diff(asked: Tensor, described: Tensor | None = None) -> Tensor:
    """The unit direction from what a caption describes to what another asks, (B, e). Section 3.3.

    described: embeddings of captions of the pictures as they are, or None for no baseline. Raises ValueError where the
    two are the same, which names no direction.
    """
    way = asked if described is None else asked - described
    if (way.norm(dim=1) < 1e-6).any():
        raise ValueError("both texts mean the same to CLIP: that is no direction to turn to; change --from or --to")
    return F.normalize(way, dim=1)


def rotate_towards(z: Tensor, direction: Tensor, share: float | Tensor) -> Tensor:
    """Embeddings turned towards unit directions by shares of the angle between them, their lengths kept. (B, e)."""
    return slerp(z, direction * z.norm(dim=1, keepdim=True), share)


def project(z: Tensor, known: Components, count: int) -> Tensor:
    """Embeddings (B, e) with what they have of the first `count` components, and their own length."""
    first = known.basis[:count]
    kept = known.mean + (z.double() - known.mean) @ first.T @ first
    return (F.normalize(kept, dim=1) * z.double().norm(dim=1, keepdim=True)).to(z.dtype)


def explained_variance(known: Components, count: int) -> float:
    """The share of all variance that the first `count` components hold."""
    return (known.variances[:count].sum() / known.variances.sum().clamp(min=1e-300)).item()
