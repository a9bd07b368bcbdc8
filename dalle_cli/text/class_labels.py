"""From captions to class labels, for networks that are conditioned on classes and not on text."""

import re
from collections.abc import Sequence

import numpy as np


def class_labels(texts: Sequence[str], names: Sequence[str] | None, classes: int) -> np.ndarray:
    """Return the class of each caption, (B,) int64: its number or, if classes have names, the one that it contains.

    Of several names the longest counts ("polar bear" before "bear"). Raises ValueError for a caption without a class.
    """
    if names:
        patterns = [(len(name), i, re.compile(rf"\b{re.escape(name.lower())}\b")) for i, name in enumerate(names)]
        patterns.sort(key=lambda pattern: -pattern[0])
        labels = [next((i for _, i, name in patterns if name.search(text.lower())), -1) for text in texts]
    else:
        labels = [int(text) if text.strip().isascii() and text.strip().isdigit() else -1 for text in texts]
    for text, label in zip(texts, labels):
        if not 0 <= label < classes:
            wanted = "a name from task.classes" if names else f"a number from 0 to {classes - 1}"
            raise ValueError(f"caption {text[:60]!r} names no class: it must contain {wanted}")
    return np.array(labels, np.int64)


def check_class_names(names: Sequence[str] | None, classes: int) -> None:
    """Raise ValueError if there are names, but not one for each class."""
    if names and len(names) != classes:
        raise ValueError(f"task.classes: {len(names)} names for a model of {classes} classes")
