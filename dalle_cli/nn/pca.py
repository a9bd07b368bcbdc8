"""Principal components: the directions in which vectors vary, the one in which they vary most first."""

from typing import NamedTuple

import torch
from torch import Tensor


class PrincipalComponents(NamedTuple):
    """mean: (e,); basis: (e, e), a component a row, of unit length; variances: (e,), falling."""

    mean: Tensor
    basis: Tensor
    variances: Tensor

    def enough(self, share: float) -> int:
        """Return the minimum number of components, at least one, that explain a fraction of the variance."""
        reached = self.variances.cumsum(0) / self.variances.sum().clamp(min=torch.finfo(self.variances.dtype).tiny)
        return min(len(reached), 1 + int((reached < share - 1e-9).sum()))


def principal_components(vectors: Tensor) -> PrincipalComponents:
    """Return the principal components of vectors (N, e), found in float64 on the CPU.

    Signs are those for which a component's largest number is positive, so that they do not depend on the machine.
    """
    x = vectors.detach().to("cpu", torch.float64)
    mean = x.mean(dim=0)
    values, vectors_ = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))  # rising
    basis = vectors_.T.flip(0)
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    return PrincipalComponents(mean, basis * largest.sign(), values.flip(0).clamp(min=0))
