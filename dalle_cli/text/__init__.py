"""Tokenizers: byte-pair encoding with the special tokens and padding of CLIP, GLIDE and DALL-E 1. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..registry import Registry

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

tokenizers = Registry("tokenizer", __name__)


class TextError(ValueError):
    """A vocabulary, or a text, that cannot be used; the message names it and the remedy in one line."""


def from_state(state: Any) -> Tokenizer:
    """The tokenizer whose `state()` this is, as a checkpoint's metadata or one of our JSON files holds it.

    Raises TextError when it is not such a state, RecipeError when its type is unknown.
    """
    if not isinstance(state, dict) or set(state) != {"type", "merges"}:
        raise TextError(
            "this is no tokenizer of ours: expected 'type' and 'merges'; make one with dalle train-tokenizer"
        )
    return tokenizers.get(state["type"])(merges=state["merges"])


def load(path: str | Path) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote to `path`. Raises TextError when the file is missing or malformed."""
    from .vocabulary import read_json

    state = read_json(Path(path))
    try:
        return from_state(state)
    except ValueError as error:
        raise TextError(f"{path}: {error}") from None
