"""Recognize published weights by their keys, and convert their state to ours and back."""

import inspect

from torch import Tensor

from ..models import models
from ..nn import meta_init
from ..registry import suggest
from . import unsupported_formats
from .layout import ConvertError, FolderConfig, Layout, State, export_tensors, import_tensors, training_only
from .layouts import all_layouts

PREFIXES = ("module.", "_orig_mod.", "model.", "clip.")  # parallel and compiled wrappers, modules of training
ASIDE = {"gradient_checkpointing", "dropout"}  # how a model is trained, no part of what it is


def recognize(state: State) -> tuple[Layout, State]:
    """The layout of published weights, told by their keys alone, and the weights without what wrappers put before keys.

    Raises ConvertError when no layout, or more than one, has these keys.
    """
    shorter, fitting = state, _fitting(state)
    while not fitting and (prefix := next((one for one in PREFIXES if _all_begin(shorter, one)), None)):
        shorter = {key.removeprefix(prefix): tensor for key, tensor in shorter.items()}
        fitting = _fitting(shorter)
    if not fitting:
        known = ", ".join(all_layouts())
        stranger = unsupported_formats.name(state) or unsupported_formats.name(shorter)
        if stranger:
            raise ConvertError(f"weights of {stranger}, which are not read; known: {known}")
        first = ", ".join(list(state)[:3]) or "none"
        raise ConvertError(f"no known layout has these keys ({first}, ...); known: {known}")
    if len(fitting) > 1:
        raise ConvertError(f"keys of several models in one file: {', '.join(source.name for source in fitting)}")
    return fitting[0], shorter


def _fitting(state: State) -> list[Layout]:
    return [source for source in all_layouts().values() if source.recognizes(state)]


def _all_begin(state: State, prefix: str) -> bool:
    return bool(state) and all(key.startswith(prefix) for key in state)


def import_state(state: State, config: dict | None = None) -> tuple[dict, dict[str, Tensor]]:
    """The recipe's model node and our state of published weights, recognized by their keys alone.

    config: the content of the layout's configuration file, see FolderConfig. Raises ConvertError when no layout, or no
    size of it, has these keys and shapes.
    """
    source, state = recognize(state)
    try:
        model = source.model(state)
    except ConvertError as error:
        raise ConvertError(f"{source.name}: {error}") from None
    except KeyError as error:
        raise ConvertError(f"{source.name}: the key {error} is missing; the file is not whole") from None
    except (IndexError, TypeError, ValueError):
        raise ConvertError(f"{source.name}: the shapes of the weights fit no size of this model") from None
    if config is not None and source.config:
        model = _configured(source.config, model, config)
    dropped = source.ignored_keys.union(training_only(source, state))
    try:
        return model, import_tensors(state, source.table(model), _expected(model), dropped)
    except ValueError as error:
        raise ConvertError(f"{source.name}: {error}") from None


def _configured(kept: FolderConfig, model: dict, config: dict) -> dict:
    try:
        return kept.read(model, config)
    except ConvertError as error:
        raise ConvertError(f"{kept.file}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError):
        raise ConvertError(f"{kept.file}: not what belongs to these weights") from None


def export_state(name: str, model: dict, state: State, configured: bool = False) -> dict[str, Tensor]:
    """The published state, in the layout `name`, of a model node and its weights; `import_state` undoes it.

    configured: the layout's configuration is written beside it. Raises ConvertError when there is no such layout, it is
    one of other models, or it cannot tell this model: who reads it takes some numbers for granted, such as 64 a head.
    """
    known = all_layouts()
    if name not in known:
        raise ConvertError(f"no layout '{name}'{suggest(name, known)}")
    source = known[name]
    if model["type"] != source.type:
        raise ConvertError(f"{name} holds a model of type '{source.type}', not '{model['type']}'")
    model = completed(model)
    try:
        out = export_tensors(state, source.table(model))
    except ConvertError as error:
        raise ConvertError(f"{name}: {error}") from None
    told = source.model(out)
    if configured and source.config:
        told = source.config.read(told, source.config.write(model))
    lost = _differences(model, told, "model")
    if lost:
        raise ConvertError(f"{name} cannot hold this model: {'; '.join(lost)}")
    return out


def completed(node: dict) -> dict:
    """A model node with the defaults of what it leaves out, in the nodes inside of it too."""
    known = node.get("type") in models.names()  # else the layout says that it has no place for it
    parameters = inspect.signature(models.get(node["type"])).parameters if known else {}
    told = {key: parameter.default for key, parameter in parameters.items() if key not in ASIDE}
    told = {key: value for key, value in told.items() if value not in (None, inspect.Parameter.empty)}
    inside = {key: completed(value) if isinstance(value, dict) else value for key, value in node.items()}
    return told | inside


def _differences(given: dict, told: dict, path: str) -> list[str]:
    """Values of a model node that its published weights would be read with otherwise; one left out is its default."""
    found = []
    parameters = inspect.signature(models.get(told["type"])).parameters if "type" in told else {}
    defaults = {key: parameter.default for key, parameter in parameters.items() if key not in ASIDE}
    for key in {**told, **given}:
        value, ours = (node.get(key, defaults.get(key)) for node in (told, given))
        if isinstance(value, dict) and isinstance(ours, dict):
            found += _differences(ours, value, f"{path}.{key}")
        elif ours != value and (ours or value) and key not in ASIDE:
            found.append(f"{path}.{key} is {ours}, would be read as {value}")
    return found


def _expected(model: dict) -> State:
    with meta_init.shapes():
        return models.build(model).state_dict()
