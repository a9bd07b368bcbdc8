"""Operations on CLIP embeddings: spherical interpolation, text diffs, principal components (Ramesh et al. 2022, 3).

Shapes: B vectors of any shape, e the width of an embedding. Rotated and projected embeddings keep their norm, because a
decoder is trained on embeddings of the usual norms only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn.pca import PrincipalComponents

MIN_SINE = 1e-4  # of the angle between two directions, below which they span no plane in float32


def slerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Interpolate from a (t = 0) to b (t = 1) along the great circle at constant speed, (B, ...). t: a number or (B,).

    Directions u, v give sin((1 - t) angle) / sin(angle) u + sin(t angle) / sin(angle) v; norms are interpolated
    linearly. Equal directions give the straight line. Opposite directions define no great circle, so a fixed one of
    them is taken.
    """
    x, y = a.flatten(1).double(), b.flatten(1).double()
    t = torch.as_tensor(t, dtype=torch.float64, device=x.device).expand(len(x))[:, None]
    u, v = F.normalize(x, dim=1), F.normalize(y, dim=1)
    cosine = (u * v).sum(dim=1, keepdim=True).clamp(-1, 1)
    angle = cosine.acos()
    sine = angle.sin()
    spans_plane = sine > MIN_SINE
    divisor = torch.where(spans_plane, sine, 1.0)
    arc = ((1 - t) * angle).sin() / divisor * u + (t * angle).sin() / divisor * v
    half_turn = torch.pi * t
    opposite = half_turn.cos() * u + half_turn.sin() * _perpendicular(u)
    direction = torch.where(spans_plane, arc, torch.where(cosine < -0.5, opposite, torch.lerp(u, v, t)))
    norm = torch.lerp(x.norm(dim=1, keepdim=True), y.norm(dim=1, keepdim=True), t)
    return (norm * direction).view_as(a).to(a.dtype)


def _perpendicular(unit: Tensor) -> Tensor:
    """Return a unit vector perpendicular to each row, from the axis along which the row is shortest."""
    axis = F.one_hot(unit.abs().argmin(dim=1), unit.shape[1]).to(unit)
    return F.normalize(axis - (axis * unit).sum(dim=1, keepdim=True) * unit, dim=1)


def text_diff(target: Tensor, baseline: Tensor | None = None) -> Tensor:
    """Return the unit direction from the embeddings of baseline captions to those of target captions, (B, e).

    Without a baseline it is the direction of the target itself. Raises ValueError where both are the same. Section 3.3.
    """
    difference = target if baseline is None else target - baseline
    if (difference.norm(dim=1) < 1e-6).any():
        raise ValueError("CLIP embeds both texts alike, which gives no direction to edit in; change --from or --to")
    return F.normalize(difference, dim=1)


def rotate_towards(z: Tensor, direction: Tensor, t: float | Tensor) -> Tensor:
    """Rotate embeddings (B, e) towards unit directions by the fraction t of the angle between them, norms kept."""
    return slerp(z, direction * z.norm(dim=1, keepdim=True), t)


def project(z: Tensor, components: PrincipalComponents, count: int) -> Tensor:
    """Project embeddings (B, e) onto the mean and the first `count` principal components, norms kept."""
    basis = components.basis[:count]
    projected = components.mean + (z.double() - components.mean) @ basis.T @ basis
    return (F.normalize(projected, dim=1) * z.double().norm(dim=1, keepdim=True)).to(z.dtype)


def explained_variance(components: PrincipalComponents, count: int) -> float:
    """Return the fraction of the variance that the first `count` principal components explain."""
    return (components.variances[:count].sum() / components.variances.sum().clamp(min=1e-300)).item()
