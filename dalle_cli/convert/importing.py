"""Published weights to a checkpoint of ours, with the recipe that their shapes tell and the tokenizer they need."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import checkpoint
from ..exits import BAD_INPUT, USAGE, WOULD_OVERWRITE, Failure
from ..text import TextError, tokenizers
from ..text.vocabulary import in_folder
from . import read, recognise
from .files import configuration, gather, published
from .keys import Source, aside
from .native import TYPES

ACTIVATIONS = ("quick-gelu", "gelu")


def import_(
    source: str, out: str, vocab: str | None, precision: str | None, activation: str | None, overwrite: bool,
    say: Callable[[str], Any],
) -> dict[str, Any]:  # fmt: skip
    """Write the checkpoint of published weights; returns what they are.

    out: a folder, or a file that ends in .safetensors. precision: of the weights, None as they are. activation: of a
    CLIP's towers where nothing beside the weights tells. Raises ConvertError, TextError, CheckpointError, Failure.
    """
    if precision is not None and precision not in TYPES:
        raise Failure(f"--precision {precision}: choose {', '.join(TYPES)}", USAGE)
    if activation is not None and activation not in ACTIVATIONS:
        raise Failure(f"--activation {activation}: choose {', '.join(ACTIVATIONS)}", USAGE)
    target = Path(out) if out.endswith(".safetensors") else Path(out) / checkpoint.FILE
    if target.exists() and not overwrite:
        raise Failure(f"{target} exists; add --overwrite, or choose another --out", WOULD_OVERWRITE)
    state, files = gather(source)
    layout, state = recognise(state)
    folder = files[0].parent
    config = configuration(layout, folder)
    left = aside(layout, state)
    model, tensors = read(state, config)
    if left:
        say(f"{files[0]}: {len(left)} tensors of its training left out ({left[0]}, ...)")
    original = published(layout, files[0])
    if layout.sums and original is None and files[0].name in layout.sums.values():
        say(f"{files[0]}: its sha256 is not that of the published {files[0].name}")
    if model["type"] == "clip":
        told = config is not None or original is not None or "input_resolution" in state  # in OpenAI's archives alone
        model = _activated(model, activation, told, say)
    recipe: dict[str, Any] = {"model": model}
    if task := layout.task(model):
        recipe["task"] = task
    tokenizer = _tokenizer(layout, model, vocab, folder) if layout.tokenizer else None
    if tokenizer is not None:
        recipe["tokenizer"] = {"type": layout.tokenizer, "path": vocab or "published"}
    dtype = TYPES[precision] if precision else None
    checkpoint.save(target, tensors, recipe, tokenizer, dtype=dtype, source=layout.name)
    return {
        "path": str(target),
        "layout": layout.name,
        "published": original,
        "model": model,
        "values": sum(tensor.numel() for tensor in tensors.values()),
        "types": _types(tensors) if dtype is None else precision,
        "entries": tokenizer.vocab_size if tokenizer else None,
    }


def _types(tensors: dict[str, Tensor]) -> str:
    counts = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _activated(model: dict, activation: str | None, told: bool, say: Callable[[str], Any]) -> dict:
    """A CLIP's node with its towers' activation."""
    if activation is None:
        if not told and model["image"]["type"] == "vit":
            say("nothing beside the weights tells their activation: quick-gelu, as OpenAI's; else --activation gelu")
        return model
    towers = {name: model[name] | {"activation": activation} for name in ("image", "text")}
    if model["image"]["type"] != "vit":
        del towers["image"]
    return model | towers


def _tokenizer(layout: Source, model: dict, vocab: str | None, folder: Path) -> Any:
    """The tokenizer of an imported model: of --vocab, beside the weights, or where this machine has the published one.

    Raises TextError when there is none, or it is one of another model.
    """
    beside = in_folder(folder)
    path = vocab or (str(beside) if beside else "published")
    try:
        tokenizer = tokenizers.build({"type": layout.tokenizer, "path": path}, "tokenizer")
    except TextError as error:
        raise TextError(f"give --vocab FILE: {error}" if path == "published" else str(error)) from None
    entries = (model.get("text") or model["conditions"]["text"])["vocab"]
    if tokenizer.vocab_size > entries or (tokenizer.vocab_size < entries and not tokenizer.published):
        raise Failure(
            f"{path}: a vocabulary of {tokenizer.vocab_size} entries, where the model has {entries}", BAD_INPUT
        )
    return tokenizer
