"""From captions to classes, for networks that know labels and no texts."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor


def class_labels(texts: Sequence[str], names: Sequence[str] | None, classes: int) -> Tensor:
    """The class of each caption, (B,) int64: its number or, where classes have names, the one that it holds.

    Of several names the longest counts ("polar bear" before "bear"). Raises ValueError for a caption of no class.
    """
    if not names:
        found = [int(text) if text.strip().isascii() and text.strip().isdigit() else -1 for text in texts]
    else:
        patterns = [(len(name), i, re.compile(rf"\b{re.escape(name.lower())}\b")) for i, name in enumerate(names)]
        patterns.sort(key=lambda one: -one[0])
        found = [next((i for _, i, one in patterns if one.search(text.lower())), -1) for text in texts]
    for text, label in zip(texts, found):
        if not 0 <= label < classes:
            wanted = "a name from task.classes" if names else f"a number from 0 to {classes - 1}"
            raise ValueError(f"{text[:60]!r} says no class: a caption must hold {wanted}")
    return torch.tensor(found)


def check_class_names(names: Sequence[str] | None, classes: int) -> None:
    """Raises ValueError when there are names, and not one for each class."""
    if names and len(names) != classes:
        raise ValueError(f"task.classes: {len(names)} names for a model of {classes} classes")
