"""Layouts of published weights: what one holds, and key tables that convert its weights to ours and back.

A key table is a list of rows. The first row whose pattern matches one of our keys names the published key that it
comes from. The same table imports and exports; both fail on any key that is left over.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

State = Mapping[str, Tensor]


class ConvertError(ValueError):
    """Weights that cannot be what their keys say; the message names the keys in one line."""


class Row(NamedTuple):
    """One row of a key table.

    ours: a regular expression that matches our whole key. published: its replacement, the published key, or several of
    them. read: from the published tensor, or as many tensors as keys, to ours. write: from our tensor to the published
    one or ones.
    """

    ours: str
    published: str | tuple[str, ...]
    read: Callable[..., Tensor] | None = None
    write: Callable[[Tensor], Any] | None = None


class FolderConfig(NamedTuple):
    """The configuration file in a folder of weights, which holds what the weights do not store.

    file: its name.
    weights: the name of the file of weights next to it.
    read: from a model node and the content of the file to the completed model node; where `Layout.files` names folders,
        the content is a mapping by folder.
    write: from a model node to the content.

    Both raise ConvertError for what our model, or the layout, cannot express.
    """

    file: str
    weights: str
    read: Callable[[dict, dict], dict]
    write: Callable[[dict], dict]


@dataclass(frozen=True)
class Layout:
    """One published layout of one type of model.

    recognizes: whether a state has the keys of this layout and of no other.
    model: the recipe's model node, from keys and shapes.
    table: the rows for a model node.
    assumed: the recipe keys that the weights do not store and that `model` sets as in the published models, from the
        model node and the state; none where these are known to be right, such as for a published size.
    ignored_keys: published keys that hold no weights.
    training_keys: a pattern of the beginning of keys that only training needs; an import leaves them out and logs it.
    task: the recipe's task node for a model node, None where no task is known.
    tokenizer: the type of tokenizer that encodes the model's texts.
    files: for a model published in several files or folders, the prefix of each one's keys and its name.
    side_file: for tensors published in a file of their own, a pattern of its name, and their keys in its order.
    wrapper: the key under which a torch file holds the state.
    checksums: names of published files by their sha256 or md5.
    config: how the layout is written to a folder.
    """

    name: str
    type: str
    recognizes: Callable[[State], bool]
    model: Callable[[State], dict]
    table: Callable[[dict], list[Row]]
    assumed: Callable[[dict, State], tuple[str, ...]] = lambda model, state: ()
    ignored_keys: frozenset[str] = frozenset()
    training_keys: str | None = None
    task: Callable[[dict], dict | None] = lambda model: None
    tokenizer: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    side_file: tuple[str, tuple[str, ...]] | None = None
    wrapper: str | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)
    config: FolderConfig | None = None


def import_tensors(state: State, table: list[Row], expected: State, ignored: Iterable[str] = ()) -> dict[str, Tensor]:
    """Convert a published state to ours; tensors keep their dtypes.

    state: where it is a dict, tensors that are joined are removed from it, so that memory does not hold them twice.
    expected: our keys with tensors of the right shapes, on any device. Raises ConvertError that lists the keys which
    are missing, have another shape or kind of dtype, or are unknown.
    """
    out, missing, misshapen, mistyped, used = {}, [], [], [], set(ignored)
    for key, wanted in expected.items():
        row, names = _match(table, key)
        used.update(names)
        absent = [name for name in names if name not in state]
        missing += absent
        if absent:
            continue
        name, tensors = names[0], [state[name] for name in names]
        try:
            tensor = row.read(*tensors) if row.read else tensors[0]
        except (RuntimeError, IndexError):  # a wrong number of dimensions
            tensor = tensors[0]
        if len(names) > 1 and isinstance(state, dict):
            for joined in names:
                del state[joined]
        if tensor.shape != wanted.shape:
            misshapen.append(f"{name} {_shape(tensor)} instead of {_shape(wanted)}")
        elif tensor.is_floating_point() != wanted.is_floating_point():
            mistyped.append(f"{name} {_dtype(tensor)} instead of {_dtype(wanted)}")
        out[key] = tensor
    unknown = [key for key in state if key not in used]
    _refuse({"missing": missing, "of another shape": misshapen, "of another dtype": mistyped, "unknown": unknown})
    return out


def export_tensors(state: State, table: list[Row]) -> dict[str, Tensor]:
    """Convert our state to a published one, the inverse of `import_tensors`.

    Raises ConvertError for a key that the layout cannot hold.
    """
    out = {}
    for key, tensor in state.items():
        row, names = _match(table, key)
        assert not out.keys() & set(names), f"two keys become '{names[0]}'"
        written = row.write(tensor) if row.write else tensor
        out |= dict(zip(names, written)) if len(names) > 1 else {names[0]: written}
    return out


def training_only(layout: Layout, state: State) -> list[str]:
    """Return the keys of a state that only training needs."""
    return [key for key in state if layout.training_keys and re.match(layout.training_keys, key)]


def count_layers(state: State, pattern: str) -> int:
    """Count the distinct first groups of a pattern among the keys whose beginning it matches."""
    return len({match.group(1) for key in state if (match := re.match(pattern, key))})


def _match(table: list[Row], key: str) -> tuple[Row, list[str]]:
    for row in table:
        match = re.fullmatch(row.ours, key)
        if match:
            names = (row.published,) if isinstance(row.published, str) else row.published
            return row, [match.expand(name) for name in names]
    raise ConvertError(f"the layout cannot hold '{key}'")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _refuse(faults: dict[str, list[str]]) -> None:
    lists = []
    for fault, keys in faults.items():
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            lists.append(f"{len(keys)} {fault}: {', '.join(keys[:5])}{more}")
    if lists:
        raise ConvertError("keys do not fit; " + "; ".join(lists))
