"""Recognize the layout of published weights by their keys, and convert whole states to ours and back."""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .. import recipe
from ..models import models
from ..nn import meta_init
from ..registry import RecipeError, suggest
from ..tasks import tasks
from . import unsupported_formats
from .layout import ConvertError, FolderConfig, Layout, State, export_tensors, import_tensors, training_only
from .layouts import all_layouts

PREFIXES = ("module.", "_orig_mod.", "model.", "clip.")  # of parallel and compiled wrappers, and of training modules
TRAINING_ARGUMENTS = {"gradient_checkpointing", "dropout"}  # of models; they change no output
SECTIONS = ("model", "task")  # of a recipe, which overrides of an import may change


def recognize(state: State) -> tuple[Layout, dict[str, Tensor]]:
    """Return the layout of published weights, and the state without the prefixes of wrappers, in the same order.

    Raises ConvertError when no layout, or more than one, has these keys.
    """
    stripped, matches = dict(state), _matching(state)
    while not matches and (prefix := next((p for p in PREFIXES if _all_start_with(stripped, p)), None)):
        stripped = {key.removeprefix(prefix): tensor for key, tensor in stripped.items()}
        matches = _matching(stripped)
    if not matches:
        known = ", ".join(all_layouts())
        unsupported = unsupported_formats.name(state) or unsupported_formats.name(stripped)
        if unsupported:
            raise ConvertError(f"weights of {unsupported} are not supported; known layouts: {known}")
        first = ", ".join(list(state)[:3]) or "none"
        raise ConvertError(f"no known layout has these keys ({first}, ...); known layouts: {known}")
    if len(matches) > 1:
        raise ConvertError(f"keys of several models in one file: {', '.join(layout.name for layout in matches)}")
    return matches[0], stripped


def _matching(state: State) -> list[Layout]:
    return [layout for layout in all_layouts().values() if layout.recognizes(state)]


def _all_start_with(state: State, prefix: str) -> bool:
    return bool(state) and all(key.startswith(prefix) for key in state)


def make_recipe(layout: Layout, state: State, config: dict | None = None, overrides: Sequence[str] = ()) -> dict:
    """Return the sections `model` and, where it is known, `task` of the recipe of recognized weights.

    config: the content of the layout's configuration file, see FolderConfig. overrides: words such as
    `model.head_dim=32` for what the weights do not store. Raises ConvertError when the shapes fit no size of the model,
    RecipeError for an override that the model or the task does not take.
    """
    try:
        model = layout.model(state)
    except ConvertError as error:
        raise ConvertError(f"{layout.name}: {error}") from None
    except KeyError as error:
        raise ConvertError(f"{layout.name}: the key {error} is missing; the file is incomplete") from None
    except (IndexError, TypeError, ValueError):
        raise ConvertError(f"{layout.name}: the shapes of the weights fit no size of this model") from None
    if config is not None and layout.config:
        model = _configured(layout.config, model, config)
    task = layout.task(model)
    made = {"model": model} | ({"task": task} if task else {})
    return _overridden(made, overrides) if overrides else made


def _configured(file: FolderConfig, model: dict, config: dict) -> dict:
    try:
        return file.read(model, config)
    except ConvertError as error:
        raise ConvertError(f"{file.file}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError):
        raise ConvertError(f"{file.file}: does not belong to these weights") from None


def _overridden(made: dict, overrides: Sequence[str]) -> dict:
    for word in overrides:
        section = word.split(".")[0].split("=")[0].strip()
        if section not in SECTIONS:
            raise RecipeError(f"{word}: an import takes overrides of model and task, such as model.heads=8")
    made = recipe.from_mapping(made, overrides)
    made["model"] = models.typed(made["model"], "model")
    if made.get("task"):
        part = tasks.get(made["task"].get("type"), "task.type")
        made["task"] = tasks.typed(made["task"], "task", inspect.signature(part).parameters.keys() - made["task"])
    return made


def convert_tensors(layout: Layout, model: dict, state: State) -> dict[str, Tensor]:
    """Convert the state of recognized weights to that of a model node. Raises ConvertError where they do not fit."""
    ignored = layout.ignored_keys.union(training_only(layout, state))
    try:
        return import_tensors(state, layout.table(model), _shapes(layout, model, state), ignored)
    except ConvertError as error:
        raise ConvertError(f"{layout.name}: {error}") from None


def _shapes(layout: Layout, model: dict, state: State) -> State:
    """Our keys with tensors of their shapes, on the meta device."""
    model = models.typed(model, "model")
    try:
        with meta_init.on_meta_device():
            return models.build(model).state_dict()
    except ValueError as error:
        keys = [key for key in layout.assumed(model, state) if "head" in key]
        hint = f"; the weights do not store {keys[0]}: add it to the command, such as {keys[0]}=32" if keys else ""
        raise ConvertError(f"{error}{hint}") from None


def import_state(state: State, config: dict | None = None, overrides: Sequence[str] = ()) -> tuple[dict, dict]:
    """Return the model node and our state of published weights, recognized by their keys. Raises as `make_recipe`."""
    layout, state = recognize(state)
    model = make_recipe(layout, state, config, overrides)["model"]
    return model, convert_tensors(layout, model, state)


def export_state(name: str, model: dict, state: State, with_config: bool = False) -> dict[str, Tensor]:
    """Return the published state, in the layout `name`, of a model node and its weights; `import_state` undoes it.

    with_config: the layout's configuration is written next to it. Raises ConvertError when there is no such layout, it
    holds other models, or an import would not give this model back.
    """
    known = all_layouts()
    if name not in known:
        raise ConvertError(f"no layout '{name}'{suggest(name, known)}")
    layout = known[name]
    if model["type"] != layout.type:
        raise ConvertError(f"{name} holds a model of type '{layout.type}', not '{model['type']}'")
    model = complete(model)
    try:
        out = export_tensors(state, layout.table(model))
    except ConvertError as error:
        raise ConvertError(f"{name}: {error}") from None
    imported = layout.model(out)
    if with_config and layout.config:
        imported = layout.config.read(imported, layout.config.write(model))
    lost = _differences(model, imported, "model")
    if lost:
        raise ConvertError(f"{name} cannot hold this model: {'; '.join(lost)}")
    return out


def complete(node: dict) -> dict:
    """Return a model node, and the nodes in it, with the defaults of what it leaves out."""
    known = node.get("type") in models.names()  # otherwise the layout says that it cannot hold it
    parameters = inspect.signature(models.get(node["type"])).parameters if known else {}
    defaults = {key: parameter.default for key, parameter in parameters.items() if key not in TRAINING_ARGUMENTS}
    defaults = {key: value for key, value in defaults.items() if value not in (None, inspect.Parameter.empty)}
    nested = {key: complete(value) if isinstance(value, dict) else value for key, value in node.items()}
    return defaults | nested


def _differences(exported: dict, imported: dict, path: str) -> list[str]:
    """Values of a model node that an import of its published weights would set otherwise."""
    lines = []
    parameters = inspect.signature(models.get(imported["type"])).parameters if "type" in imported else {}
    defaults = {key: parameter.default for key, parameter in parameters.items() if key not in TRAINING_ARGUMENTS}
    for key in {**imported, **exported}:
        theirs, ours = (node.get(key, defaults.get(key)) for node in (imported, exported))
        if isinstance(theirs, dict) and isinstance(ours, dict):
            lines += _differences(ours, theirs, f"{path}.{key}")
        elif ours != theirs and (ours or theirs) and key not in TRAINING_ARGUMENTS:
            lines.append(f"{path}.{key} is {ours}, would be read as {theirs}")
    return lines


def value_at(node: dict, path: str) -> Any:
    """Return the value of a recipe at a dotted path, None where there is none."""
    value: Any = node
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
