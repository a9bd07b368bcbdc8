"""`dalle train-tokenizer`: a vocabulary learned from the captions of any data."""

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import StageProgress, align, log, print_result
from .app import TRAIN, command
from .manage import accepts
from .options import Json, Overrides, Overwrite, Quiet

MEASURED = 1000  # captions


@command(
    TRAIN,
    "dalle train-tokenizer --recipe starter --out vocab.json",
    "dalle train-tokenizer --recipe dalle1 data.path=/data/pairs learn.vocab_size=8192 --out vocab.json",
    name="train-tokenizer",
)
def train_tokenizer(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    overrides: Overrides = None,
    recipe: Annotated[str, typer.Option(help="Name or file of a recipe.")] = "starter",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Learn a vocabulary from captions: byte pairs, the most frequent first."""
    from .. import recipe as recipes
    from ..training import vocabulary

    found = recipes.load(recipe, "tokenizer", overrides or [], accepts, log)
    watch = StageProgress(quiet)
    learned = vocabulary.learn(found, out, overwrite, log, watch)
    watch.close()
    result = {"path": str(out), "type": learned.kind, "entries": learned.vocab_size, "merges": len(learned.merges)}
    result |= _measure(learned, found["data"])
    print_result(result, align(result.items()), as_json)


def _measure(tokenizer: Any, data: dict) -> dict[str, float]:
    """Tokens a caption takes on average, spelled in bytes and in the learned vocabulary."""
    from ..data.section import open_source
    from ..training.vocabulary import captions

    bare = type(tokenizer)(merges=[])
    texts = list(islice(captions(open_source(data)[0], MEASURED), MEASURED))
    bytes_, tokens = (sum(len(one.encode(text)) for text in texts) for one in (bare, tokenizer))
    count = max(len(texts), 1)
    return {"bytes_per_caption": round(bytes_ / count, 2), "tokens_per_caption": round(tokens / count, 2)}
