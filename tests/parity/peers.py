"""The packages of the published networks, for comparisons; those that are not installed are skipped.

open_clip asks for torchvision, which asks for one build of torch and brings gigabytes of CUDA where torch is the CPU
build. Its networks need nothing of it, so it is installed without (`make parity`), and imports a stand-in.
"""

import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

TORCHVISION = ("torchvision.transforms.functional", "torchvision.ops.misc")


class Missing(Exception):
    """A package that is not installed, or cannot be imported; the message says which and why."""


def peer(name: str) -> Any:
    """The module of a package. Raises Missing."""
    try:
        if name.split(".")[0] == "open_clip" and "torchvision" not in sys.modules:
            try:
                importlib.import_module("torchvision")
            except (ImportError, RuntimeError):  # absent, or built for another torch
                with suppress(ImportError):
                    importlib.import_module("transformers")  # it looks for torchvision, and must not find the stand-in
                with absent(*TORCHVISION):
                    return importlib.import_module(name)
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        raise Missing(f"{name.split('.')[0]}: {str(error).splitlines()[0]}") from None


class _Anything(type):
    """A class whose attributes are classes of its kind, which is enough to be imported, inherited and named."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


@contextmanager
def absent(*modules: str) -> Iterator[None]:
    """Replace modules and their parents by stand-ins from which anything can be imported."""
    parts = [name.split(".") for name in modules]
    names = sorted({".".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1)})
    roots = {part[0] for part in parts}
    for name in [name for name in sys.modules if name.split(".")[0] in roots]:
        del sys.modules[name]
    for name in names:
        module: Any = types.ModuleType(name)
        module.__getattr__ = lambda attribute: getattr(_Anything("Anything", (), {}), attribute)
        module.__path__ = []
        sys.modules[name] = module
    for name in names:
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, sys.modules[name])
    try:
        yield
    finally:
        for name in names:  # later imports of the real one fail
            del sys.modules[name]


@contextmanager
def unfilled() -> Iterator[None]:
    """Build networks without allocating their parameters; buffers are filled."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        yield


def fill(network: nn.Module) -> nn.Module:
    """Give a network random numbers, as a trained one might have; no branch is without weight.

    Matrices have the spread that keeps that of what they are applied to; gains are near one, biases near zero.
    """
    torch.manual_seed(0)
    network.load_state_dict({key: _numbers(key, old) for key, old in network.state_dict().items()}, assign=True)
    return network.eval().requires_grad_(False)


def _numbers(key: str, old: Tensor) -> Tensor:
    if not old.is_floating_point():
        return torch.zeros(old.shape, dtype=old.dtype)
    spread = 3**0.5 * (old[0].numel() ** -0.5 if old.ndim > 1 else 0.1)
    new = torch.empty(old.shape).uniform_(-spread, spread)  # much faster than normal ones
    if key.endswith(("running_var", "clip_std")):
        return 1 + new.abs()
    return 1 + new if old.ndim == 1 and key.endswith("weight") else new
