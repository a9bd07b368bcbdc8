"""Dtypes of exported and imported weights by the names that `--precision` takes."""

import torch
from torch import Tensor

from ..exits import USAGE, Failure
from ..hardware.precision import DTYPES


def parse(precision: str | None) -> torch.dtype | None:
    """Return the dtype that `--precision` names, None to keep each tensor's. Raises Failure for an unknown name."""
    if precision is not None and precision not in DTYPES:
        raise Failure(f"--precision {precision}: choose one of {', '.join(DTYPES)}", USAGE)
    return DTYPES[precision] if precision else None


def name(dtype: torch.dtype) -> str:
    """Return torch's name of a dtype."""
    return str(dtype).removeprefix("torch.")


def cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return a contiguous tensor, in another dtype where one is given and the tensor holds floating-point numbers."""
    return (tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor).contiguous()
