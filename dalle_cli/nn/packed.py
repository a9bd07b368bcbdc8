"""Layers whose weights are used again and again without gradients: laid out once as oneDNN's kernels read them.

Where something is drawn token by token, reading the weights is the work, and this reads them two to three times sooner;
of many rows, and of convolutions, it saves what every call would spend on laying them out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .attention import SelfAttention
from .hardware import all_memory

# For so many rows the weights are laid out. Products of any number are done with that layout, each row the same to the
# bit whatever stands beside it, which products with weights as they are do not promise.
ROWS = 8
LEAST = 1 << 18  # weights of a layer; with fewer, handing over to oneDNN takes longer than the product
SHARE = 1 / 4  # of the memory that the copies may take; not of what is free, so that it is the same at every call


@contextmanager
def packed(*models: nn.Module) -> Iterator[None]:
    """Inside, the models' large layers work with copies of their weights in oneDNN's layout; without gradients.

    To be entered under the autocast that the layers work in, which gives the copies their type. Where there is no such
    layout for the device and the type, or no room for the copies, the layers work as ever.
    """
    layers = [layer for model in models for layer in _layers(model)] if size(*models) else []
    try:
        for layer in layers:
            setattr(layer.module, layer.method, layer)
        yield
    finally:
        for layer in layers:
            vars(layer.module).pop(layer.method, None)


def size(*models: nn.Module) -> int:
    """Bytes that the copies of `packed` would take here; 0 where none would be made."""
    found = sum(layer.weight.numel() * layer.kind.itemsize for model in models for layer in _layers(model))
    return found if found <= SHARE * all_memory() else 0


class _Product:
    """In place of a module's method that multiplies by a weight, once it is set there.

    kind: the type in which it multiplies.
    """

    def __init__(self, module: Any, method: str, weight: Tensor, bias: Tensor | None):
        self.module, self.method, self.weight, self.bias = module, method, weight, bias
        self.kind = _type(weight)
        self._copy: Tensor | None = None
        self._bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or _type(self.weight) != self.kind:  # or a part left out of mixed precision
            return getattr(type(self.module), self.method)(self.module, x)
        return self._multiply(x.to(self.kind))

    def _multiply(self, x: Tensor) -> Tensor:
        if self._copy is None:
            self._copy = torch.ops.mkldnn._reorder_linear_weight(self._converted(self.weight), ROWS)
            self._bias = self._converted(self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self._copy, self._bias, "none", [], "")

    def _converted(self, value: Any) -> Any:
        return None if value is None else value.detach().to(self.kind)


class _Convolution(_Product):
    """The same for a convolution, whose layout depends on the size of the pictures; the last one's is kept."""

    _size: torch.Size | None = None  # (C, H, W) of the pictures that the copy was laid out for

    def _multiply(self, x: Tensor) -> Tensor:
        layer = self.module
        how = layer.padding, layer.stride, layer.dilation, layer.groups
        if self._size != x.shape[1:]:
            self._size = x.shape[1:]
            self._copy = torch.ops.mkldnn._reorder_convolution_weight(self._converted(self.weight), *how, [*x.shape])
            self._bias = self._converted(self.bias)
        return torch.ops.mkldnn._convolution_pointwise(x, self._copy, self._bias, *how, "none", [], "")


def _layers(model: nn.Module) -> list[_Product]:
    found: list[_Product] = []
    for module in model.modules():
        if type(module) is nn.Linear:
            found.append(_Product(module, "forward", module.weight, module.bias))
        elif type(module) is SelfAttention:
            found.append(_Product(module, "project", module.in_proj_weight, module.in_proj_bias))
        elif type(module) is nn.Conv2d and not isinstance(module.padding, str) and module.padding_mode == "zeros":
            found.append(_Convolution(module, "forward", module.weight, module.bias))
    return [
        layer
        for layer in found
        if layer.weight.numel() >= LEAST
        and layer.method not in vars(layer.module)
        and _known(layer.weight.device.type, layer.kind)
    ]


def _known(device: str, kind: torch.dtype) -> bool:
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return kind == torch.float32 or (kind == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _type(weight: Tensor) -> torch.dtype:
    """In which a weight multiplies."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
