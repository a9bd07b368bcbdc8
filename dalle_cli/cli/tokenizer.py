"""`dalle train-tokenizer`: learn a vocabulary from the captions of any data."""

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import StageProgress, align, log, print_result
from .app import TRAIN, command
from .manage import accepts
from .options import Json, Overrides, Overwrite, Quiet

MEASURED_CAPTIONS = 1000


@command(
    TRAIN,
    "dalle train-tokenizer --recipe starter --out vocab.json",
    "dalle train-tokenizer --recipe dalle1 data.path=/data/pairs learn.vocab_size=8192 --out vocab.json",
    name="train-tokenizer",
)
def train_tokenizer(
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="JSON file to write.")],
    overrides: Overrides = None,
    recipe: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="Recipe: `dalle recipes tokenizer` lists them.")
    ] = "starter",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Learn a byte-pair vocabulary from captions."""
    from .. import recipe as recipes
    from ..training import vocabulary

    loaded = recipes.load(recipe, "tokenizer", overrides or [], accepts, log)
    progress = StageProgress(quiet)
    learned = vocabulary.learn(loaded, out, overwrite, log, progress)
    progress.close()
    result = {"path": str(out), "type": learned.kind, "vocab_size": learned.vocab_size, "merges": len(learned.merges)}
    result |= _lengths(learned, loaded["data"])
    print_result(result, align(result.items()), as_json)


def _lengths(tokenizer: Any, data: dict) -> dict[str, float]:
    """Return the mean length of captions in bytes and in tokens of the learned vocabulary."""
    from ..data.section import open_source
    from ..training.vocabulary import captions

    untrained = type(tokenizer)(merges=[])
    texts = list(islice(captions(open_source(data)[0], MEASURED_CAPTIONS), MEASURED_CAPTIONS))
    num_bytes, tokens = (sum(len(one.encode(text)) for text in texts) for one in (untrained, tokenizer))
    count = max(len(texts), 1)
    return {"bytes_per_caption": round(num_bytes / count, 2), "tokens_per_caption": round(tokens / count, 2)}
