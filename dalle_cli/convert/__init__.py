"""Published weights and ours: a publisher's layouts per file, found by their keys. Adding one is adding a file."""

import importlib
import pkgutil

import torch
from torch import Tensor

from ..models import models
from ..registry import suggest
from . import keys
from .keys import ConvertError, Source, State


def sources() -> dict[str, Source]:
    """Every published layout by name: the `SOURCES` of each module of this package."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {source.name: source for module in modules for source in getattr(module, "SOURCES", ())}


def read(state: State) -> tuple[dict, dict[str, Tensor]]:
    """The recipe's model node and our state of published weights, recognised by their keys alone.

    state: published keys, with or without a leading `module.`. Raises ConvertError when no layout, or no size of it,
    has these keys and shapes.
    """
    if state and all(key.startswith("module.") for key in state):  # saved from inside a parallel wrapper
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    fitting = [source for source in sources().values() if source.recognises(state)]
    if not fitting:
        first = ", ".join(list(state)[:3]) or "none"
        raise ConvertError(f"no known layout has these keys ({first}, ...); known: {', '.join(sources())}")
    if len(fitting) > 1:
        raise ConvertError(f"keys of several models in one file: {', '.join(source.name for source in fitting)}")
    (source,) = fitting
    try:
        model = source.model(state)
    except KeyError as error:
        raise ConvertError(f"{source.name}: the key {error} is missing; the file is not whole") from None
    except (IndexError, TypeError, ValueError):
        raise ConvertError(f"{source.name}: the shapes of the weights fit no size of this model") from None
    try:
        return model, keys.read(state, source.table(model), _expected(model), source.dropped)
    except ValueError as error:
        raise ConvertError(f"{source.name}: {error}") from None


def write(name: str, model: dict, state: State) -> dict[str, Tensor]:
    """The published state, in the layout `name`, of a model node and its weights; `read` undoes it.

    Raises ConvertError when there is no such layout, it is one of other models, or it cannot tell this model: who reads
    it takes some numbers for granted, such as 64 a head.
    """
    known = sources()
    if name not in known:
        raise ConvertError(f"no layout '{name}'{suggest(name, known)}")
    source = known[name]
    if model["type"] != source.type:
        raise ConvertError(f"{name} holds a model of type '{source.type}', not '{model['type']}'")
    try:
        out = keys.write(state, source.table(model))
    except ConvertError as error:
        raise ConvertError(f"{name}: {error}") from None
    lost = _differences(model, source.model(out), "model")
    if lost:
        raise ConvertError(f"{name} cannot hold this model: {'; '.join(lost)}")
    return out


def _differences(given: dict, told: dict, path: str) -> list[str]:
    """Values of a model node that its published weights would be read with otherwise."""
    found = []
    for key, value in told.items():
        if isinstance(value, dict):
            found += _differences(given.get(key, {}), value, f"{path}.{key}")
        elif key in given and given[key] != value:
            found.append(f"{path}.{key} is {given[key]}, would be read as {value}")
    return found


def _expected(model: dict) -> State:
    with torch.device("meta"):
        return models.build(model).state_dict()
