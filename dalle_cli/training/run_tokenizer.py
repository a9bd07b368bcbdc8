"""The tokenizer of a run. Where a recipe's vocabulary file does not exist yet, it is learned from the run's captions.

It is learned once and kept in the run's folder, so a resumed run and every process read the same vocabulary.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import checkpoint, distributed
from ..data.section import open_source
from ..recipe import Recipe, section
from ..registry import RecipeError
from ..text import TextError, tokenizers
from ..text.learn import learn, smallest
from ..text.loading import from_state, load
from .vocabulary import captions

FILE = "tokenizer.json"
MAX_CAPTIONS = 50_000  # that a vocabulary is learned from
SHIPPED = ("published", "starter")  # paths that name a vocabulary rather than a file


def prepare(recipe: Recipe, run: Path, say: Callable[[str], None]) -> tuple[Recipe, Any]:
    """Return the recipe and the tokenizer to train with; None for a task without one.

    The recipe is as it was, except that a model that must have the vocabulary's size gets the size of what was learned.
    Every process of the run calls this. Raises RecipeError, TextError, DataError.
    """
    if not recipe.get("tokenizer"):
        return recipe, None
    file = run / FILE
    exists = distributed.all_gather_object(file.is_file())[0]  # as the first process sees it, before it writes
    if not exists and not is_missing(recipe):
        return recipe, tokenizers.build(recipe["tokenizer"], "tokenizer")
    if not exists and distributed.rank() == 0:
        _learn(recipe, file, say)
    distributed.barrier()
    tokenizer = load(file)
    if recipe["model"].get("type") == "dalle":
        recipe = {**recipe, "model": {**recipe["model"], "vocab_size": tokenizer.vocab_size}}
    return recipe, tokenizer


def is_missing(recipe: Recipe) -> bool:
    """Return whether the vocabulary's file does not exist, so that a run learns it."""
    path = section(recipe, "tokenizer").get("path")
    return isinstance(path, str) and path not in SHIPPED and not Path(path).expanduser().exists()


def learned_size(recipe: Recipe) -> int:
    """Return the entries of the vocabulary that a run learns; 0 where it takes that of its frozen CLIP.

    Raises RecipeError for a model with fewer entries than bytes and special tokens.
    """
    size = find_number(recipe["model"], "vocab_size")
    least = smallest(recipe["tokenizer"]["type"])
    if 0 < size < least:
        raise RecipeError(
            f"model: a vocabulary of {size} entries is smaller than the {least} bytes and special tokens of a "
            f"'{recipe['tokenizer']['type']}' tokenizer: raise vocab_size"
        )
    return size


def find_number(model: dict, name: str) -> int:
    """Return a number that a model is made for, such as `vocab_size`, from wherever it is in the model; 0 for none."""
    for key, value in model.items():
        if key == name:
            return int(value)
        if isinstance(value, dict) and (inside := find_number(value, name)):
            return inside
    return 0


def _learn(recipe: Recipe, file: Path, say: Callable[[str], None]) -> None:
    kind = recipe["tokenizer"]["type"]
    clip = section(recipe, "frozen").get("clip")
    state = checkpoint.metadata(checkpoint.resolve(str(clip)))["tokenizer"] if clip else None
    own_encoder = state and state.get("type") != kind and find_number(recipe["model"], "vocab_size")
    if state and not own_encoder:
        from_state(state).save(file)  # its texts must be read as that CLIP was trained to
        say(f"tokenizer.path {recipe['tokenizer']['path']} does not exist: using the vocabulary of frozen.clip, {clip}")
        return
    size = learned_size(recipe)
    if not size:
        path = recipe["tokenizer"]["path"]
        raise TextError(f"tokenizer.path: {path} does not exist; learn it: dalle train-tokenizer")
    source, loading = open_source(recipe["data"])
    count = 0

    def counted() -> Any:
        nonlocal count
        for count, caption in enumerate(captions(source, MAX_CAPTIONS, loading.caption), 1):  # noqa: B007
            yield caption

    tokenizer = learn(counted(), size, kind)
    tokenizer.save(file)
    say(
        f"tokenizer.path {recipe['tokenizer']['path']} does not exist: learned a vocabulary of "
        f"{tokenizer.vocab_size} entries from {count} captions, kept in {file}"
    )
