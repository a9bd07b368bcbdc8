"""Layers whose weights are used again and again without gradients: laid out once as oneDNN's kernels read them.

Where something is drawn token by token, reading the weights is the work, and this reads them two to three times sooner;
of many rows, and of convolutions, it saves what every call would spend on laying them out. And a row or a picture comes
out the same to the bit whatever stands beside it, which products with weights as they are do not promise.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..hardware.capabilities import total_memory
from .attention import SelfAttention

LAYOUT_ROWS = 8  # of an input, for which weights are laid out; products of any number are done with that layout
# Weights of a layer for which it is worth it where a few rows at a time are multiplied: with fewer, handing over to
# oneDNN takes longer than the product.
MIN_WEIGHTS = 1 << 18
# Of the memory that the copies of a machine's processes may take; not of what is free, so that it is the same always.
MEMORY_FRACTION = 1 / 4


@contextmanager
def prepacked(*models: nn.Module, min_weights: int = 0) -> Iterator[None]:
    """Inside, the models' layers of at min_weights so many weights work with copies in oneDNN's layout; without
    gradients.

    To be entered under the autocast that the layers work in, by which room is found for the copies; they are made when
    a layer is first used. Where there is no such layout for the device and the type, or no room, layers work as ever.
    """
    layers = (
        [layer for model in models for layer in _layers(model, min_weights)]
        if prepacked_bytes(*models, min_weights=min_weights)
        else []
    )
    try:
        for layer in layers:
            setattr(layer.module, layer.method, layer)
        yield
    finally:
        for layer in layers:
            vars(layer.module).pop(layer.method, None)


_short: list[bool] = []


@contextmanager
def without_prepacking() -> Iterator[None]:
    """Inside, `packed` does nothing: where memory is short, and the copies would hold a model twice."""
    _short.append(True)
    try:
        yield
    finally:
        _short.pop()


def prepacked_bytes(*models: nn.Module, min_weights: int = 0) -> int:
    """Bytes that the copies of `packed` would take here if all layers are used; 0 where none would be made."""
    if _short:
        return 0
    layers = [layer for model in models for layer in _layers(model, min_weights)]
    found = sum(layer.weight.numel() * _type(layer.weight).itemsize for layer in layers)
    return found if found <= MEMORY_FRACTION * total_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", "1")) else 0


class _Product:
    """In place of a module's method that multiplies by a weight, once it is set there."""

    def __init__(self, module: Any, method: str, weight: Tensor, bias: Tensor | None):
        self.module, self.method, self.weight, self.bias = module, method, weight, bias
        self._made: tuple | None = None  # what the copies were laid out for
        self._copies: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        kind = _type(self.weight)
        if torch.is_grad_enabled() or not _known(x.device.type, kind):
            return getattr(type(self.module), self.method)(self.module, x)
        x = x.to(kind)
        if self._made != self._made_for(x):
            bias = None if self.bias is None else self.bias.detach().to(kind)
            self._copies = self._laid_out(self.weight.detach().to(kind), x), bias
            self._made = self._made_for(x)
        return self._multiply(x, *self._copies)  # type: ignore[misc]

    def _made_for(self, x: Tensor) -> tuple:
        return (x.dtype,)

    def _laid_out(self, weight: Tensor, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight, LAYOUT_ROWS)

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.numel() == x.shape[-1]:  # of one row oneDNN rounds otherwise than of more
            both = self._multiply(x.flatten().expand(2, -1).contiguous(), weight, bias)
            return both[0].view(*x.shape[:-1], -1)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Convolution(_Product):
    """The same for a convolution, whose layout depends on the size of the pictures."""

    def __init__(self, module: nn.Conv2d):
        super().__init__(module, "forward", module.weight, module.bias)
        self._how = module.padding, module.stride, module.dilation, module.groups

    def _made_for(self, x: Tensor) -> tuple:
        return x.dtype, x.shape[1:]

    def _laid_out(self, weight: Tensor, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(weight, *self._how, [*x.shape])

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *self._how, "none", [], "")


def _layers(model: nn.Module, min_weights: int) -> list[_Product]:
    found: list[_Product] = []
    for module in model.modules():
        if type(module) is nn.Linear:
            found.append(_Product(module, "forward", module.weight, module.bias))
        elif type(module) is SelfAttention:
            found.append(_Product(module, "project", module.in_proj_weight, module.in_proj_bias))
        elif type(module) is nn.Conv2d and not isinstance(module.padding, str) and module.padding_mode == "zeros":
            found.append(_Convolution(module))
    return [
        layer
        for layer in found
        if layer.weight.numel() >= min_weights
        and layer.method not in vars(layer.module)
        and _known(layer.weight.device.type, _type(layer.weight))
    ]


@cache
def _known(device: str, kind: torch.dtype) -> bool:
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return kind == torch.float32 or (kind == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _type(weight: Tensor) -> torch.dtype:
    """In which a weight multiplies."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
