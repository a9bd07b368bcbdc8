"""Key tables: how the weights of one published layout become ours, and ours become theirs.

A table is a list of rows, the first whose pattern matches one of our keys names the published key that it comes from.
Applied forwards it imports, backwards it exports; both fail on anything that is left over.
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
    """Our keys (a regular expression for the whole key), the published key (its replacement), and what becomes of the
    tensor on the way in and on the way out.

    published: or several keys; `read` then takes as many tensors, and `write` returns them.
    """

    ours: str
    published: str | tuple[str, ...]
    read: Callable[..., Tensor] | None = None
    write: Callable[[Tensor], Any] | None = None


class FolderConfig(NamedTuple):
    """What a folder says of weights that they do not say themselves.

    file: its name; weights: that of the weights beside it. read: the model node that keys told, completed by the file's
    content, or by folders' contents where `Layout.files` names those; write: the content for a model node. Raises
    ConvertError for what our model has no place for.
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
    ignored_keys: frozenset[str] = frozenset()
    training_keys: str | None = None
    task: Callable[[dict], dict | None] = lambda model: None
    tokenizer: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    side_file: tuple[str, tuple[str, ...]] | None = None
    wrapper: str | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)
    config: FolderConfig | None = None


def import_tensors(state: State, table: list[Row], ours: State, dropped: Iterable[str] = ()) -> dict[str, Tensor]:
    """Our state from a published one, every tensor in the type that it has there.

    state: tensors that are joined are taken out of it where it is a dict, so that they are not held twice. ours: our
    keys with tensors of the right shapes, on any device. Raises ConvertError that lists the keys which are missing, of
    another shape or kind of number, or left over.
    """
    out, missing, misshapen, mistyped, used = {}, [], [], [], set(dropped)
    for key, expected in ours.items():
        row, names = _find(table, key)
        used.update(names)
        absent = [name for name in names if name not in state]
        missing += absent
        if absent:
            continue
        name, given = names[0], [state[name] for name in names]
        try:
            tensor = row.read(*given) if row.read else given[0]
        except (RuntimeError, IndexError):  # of a number of dimensions that cannot be
            tensor = given[0]
        if len(names) > 1 and isinstance(state, dict):
            for one in names:
                del state[one]
        if tensor.shape != expected.shape:
            misshapen.append(f"{name} {_shape(tensor)} instead of {_shape(expected)}")
        elif tensor.is_floating_point() != expected.is_floating_point():
            mistyped.append(f"{name} {_type(tensor)} instead of {_type(expected)}")
        out[key] = tensor
    unknown = [key for key in state if key not in used]
    _refuse({"missing": missing, "of another shape": misshapen, "of another type": mistyped, "unknown": unknown})
    return out


def export_tensors(state: State, table: list[Row]) -> dict[str, Tensor]:
    """Return the published state of ours; `import_tensors` undoes it.

    Raises ConvertError for a key that the layout has no place for.
    """
    out = {}
    for key, tensor in state.items():
        row, names = _find(table, key)
        assert not out.keys() & set(names), f"two keys become '{names[0]}'"
        written = row.write(tensor) if row.write else tensor
        out |= dict(zip(names, written)) if len(names) > 1 else {names[0]: written}
    return out


def training_only(layout: Layout, state: State) -> list[str]:
    """The keys of a state that its layout leaves aside."""
    return [key for key in state if layout.training_keys and re.match(layout.training_keys, key)]


def count_layers(state: State, pattern: str) -> int:
    """How many different first groups the pattern has in keys that it begins: layers, mostly."""
    return len({match.group(1) for key in state if (match := re.match(pattern, key))})


def _find(table: list[Row], key: str) -> tuple[Row, list[str]]:
    for row in table:
        match = re.fullmatch(row.ours, key)
        if match:
            names = (row.published,) if isinstance(row.published, str) else row.published
            return row, [match.expand(name) for name in names]
    raise ConvertError(f"'{key}' has no place in this layout")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _refuse(faults: dict[str, list[str]]) -> None:
    told = []
    for fault, keys in faults.items():
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            told.append(f"{len(keys)} {fault}: {', '.join(keys[:5])}{more}")
    if told:
        raise ConvertError("keys do not fit; " + "; ".join(told))
