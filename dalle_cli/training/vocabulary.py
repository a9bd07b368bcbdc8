"""Learning a tokenizer's vocabulary from the captions of any data source."""

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..data.mixture import Mixture
from ..data.section import check as check_data
from ..data.section import open_source
from ..data.source import BadSample, all_captions
from ..files import check_target
from ..recipe import section
from ..registry import RecipeError, bind
from ..text import tokenizers
from ..text.learn import learn as learn_vocabulary
from ..text.learn import smallest
from ..text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Learn:
    """The `learn` section. vocab_size: entries of the vocabulary; captions: how many to read, spread over the data."""

    vocab_size: int
    captions: int = 100_000

    def __post_init__(self):
        if self.captions < 1:
            raise RecipeError(f"learn.captions: {self.captions} is not at least 1")


def learn(
    recipe: dict,
    out: Path,
    overwrite: bool,
    say: Callable[[str], None],
    watch: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Tokenizer:
    """Learn what a tokenizer recipe describes and save it as JSON. Raises RecipeError, DataError, TextError, Failure.

    watch: called with what is worked on, captions and then merges, how many are done and how many there are.
    """
    options, kind = check(recipe)
    check_target(out, "--out", overwrite)
    source, loading = open_source(recipe.get("data"))

    def read() -> Iterator[str]:
        for done, caption in enumerate(captions(source, options.captions, loading.caption), 1):
            yield caption
            watch("captions", done, options.captions)

    tokenizer = learn_vocabulary(read(), options.vocab_size, kind, partial(watch, "merges"))
    if tokenizer.vocab_size < options.vocab_size:
        say(f"only {tokenizer.vocab_size} entries: no other pair occurs twice in {options.captions} captions")
    tokenizer.save(out)
    return tokenizer


def check(recipe: dict) -> tuple[Learn, str]:
    """Return the options and the kind of a tokenizer recipe, all of it validated. Raises RecipeError."""
    node = recipe.get("tokenizer") or {"type": "dalle"}
    if not isinstance(node, dict) or set(node) != {"type"}:
        raise RecipeError("tokenizer: expected only a type, such as {type: dalle}; the rest is learned")
    tokenizers.get(node["type"], "tokenizer.type")
    check_data(recipe.get("data"))
    options = Learn(**bind(Learn, section(recipe, "learn"), "learn"))
    smallest_size = smallest(node["type"])
    if options.vocab_size < smallest_size:
        raise RecipeError(
            f"learn.vocab_size: {options.vocab_size} is less than {smallest_size}, the bytes and special tokens"
        )
    return options, node["type"]


def captions(source: Any, count: int, choice: str = "random") -> Iterator[str]:
    """Yield the captions of `count` samples chosen at random, or of all where there are fewer; bad samples have none.

    choice: which of several captions, see `data.caption`.
    """
    sources = source.sources if isinstance(source, Mixture) else [source]
    for part in sources:
        total = sum(part.blocks)
        wanted = min(total, -(-count // len(sources)))
        chosen = iter(sorted(random.Random(0).sample(range(total), wanted)))
        position = next(chosen, None)
        first = 0
        for block, size in enumerate(part.blocks):
            while position is not None and position < first + size:
                with contextlib.suppress(BadSample):
                    yield from all_captions(part.read(block, position - first, with_image=False)["text"], choice)
                position = next(chosen, None)
            first += size
