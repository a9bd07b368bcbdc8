"""Load tokenizers: from a JSON file, or from the metadata of a checkpoint."""

from pathlib import Path
from typing import Any

from . import TextError, tokenizers
from .tokenizer import Tokenizer
from .vocabulary import read_json


def from_state(state: Any) -> Tokenizer:
    """Return the tokenizer of a `Tokenizer.state()`, as checkpoints and JSON files hold it.

    Raises TextError when it is not such a state, RecipeError when its type is unknown.
    """
    if not isinstance(state, dict) or set(state) != {"type", "merges"}:
        raise TextError("not a tokenizer of dalle: expected 'type' and 'merges'; make one with dalle train-tokenizer")
    return tokenizers.get(state["type"])(merges=state["merges"])


def load(path: str | Path) -> Tokenizer:
    """Return the tokenizer that `Tokenizer.save` wrote. Raises TextError when the file is missing or malformed."""
    state = read_json(Path(path))
    try:
        return from_state(state)
    except ValueError as error:
        raise TextError(f"{path}: {error}") from None
