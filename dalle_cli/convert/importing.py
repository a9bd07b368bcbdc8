"""Published weights to a checkpoint of ours, with the recipe that their shapes tell and the tokenizer they need."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import checkpoint
from ..exits import BAD_INPUT, USAGE, WOULD_OVERWRITE, Failure
from ..text import TextError, tokenizers
from ..text.vocabulary import in_folder
from .files import hub
from .files.opening import configuration, gather, published
from .layout import Layout, training_only
from .native import TYPES
from .recognition import import_state, recognize

VOCABULARIES = {
    "clip": ("merges.txt", "bpe_simple_vocab_16e6.txt", "tokenizer.json"),
    "glide": ("vocab.bpe", "merges.txt", "tokenizer.json"),
}
ACTIVATIONS = ("quick-gelu", "gelu")


@dataclass(frozen=True)
class Plan:
    """What an import will do, all of it checked that can be before numbers are read."""

    source: str
    target: Path
    layout: Layout
    files: list[Path]
    original: str | None
    model: dict[str, Any]
    recipe: dict[str, Any]
    tokenizer: Any
    precision: str | None

    def placed(self, target: Path) -> "Plan":
        return replace(self, target=target)


def import_(
    source: str, out: str, vocab: str | None, precision: str | None, activation: str | None, overwrite: bool,
    say: Callable[[str], Any],
) -> dict[str, Any]:  # fmt: skip
    """Write the checkpoint of published weights; returns what they are.

    source: a file, a folder, or one of the Hugging Face hub (hub.py). out: a folder, or a file that ends in
    .safetensors. precision: of the weights, None as they are. activation: of a CLIP's towers where nothing beside the
    weights tells. Raises ConvertError, TextError, CheckpointError, Failure.
    """
    check_options(precision, activation)
    target = Path(out) if out.endswith(".safetensors") else Path(out) / checkpoint.FILE
    check_free(target, overwrite)
    return carry(plan(hub.fetched(source, say), target, vocab, precision, activation, say))


def check_options(precision: str | None, activation: str | None) -> None:
    if precision is not None and precision not in TYPES:
        raise Failure(f"--precision {precision}: choose {', '.join(TYPES)}", USAGE)
    if activation is not None and activation not in ACTIVATIONS:
        raise Failure(f"--activation {activation}: choose {', '.join(ACTIVATIONS)}", USAGE)


def check_free(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise Failure(f"{target} exists; add --overwrite, or choose another --out", WOULD_OVERWRITE)


def plan(
    source: str, target: Path, vocab: str | None, precision: str | None, activation: str | None,
    say: Callable[[str], Any],
) -> Plan:  # fmt: skip
    """Recognise weights by their keys and shapes, and find what they need beside; no number is read."""
    state, files = gather(source, empty=True)
    layout, state = recognize(state)
    config = configuration(layout, files[0])
    left = training_only(layout, state)
    model, _ = import_state(state, config)
    if left:
        say(f"{files[0]}: {len(left)} tensors of its training left out ({left[0]}, ...)")
    tokenizer = _tokenizer(layout, model, vocab, files[0].parent) if layout.tokenizer and _reads(model) else None
    original = published(layout, files[0])
    if original is None and files[0].name in layout.checksums.values():
        say(f"{files[0]}: its checksum is not that of the published {files[0].name}")
    if model["type"] == "clip":
        told = config is not None or original is not None or "input_resolution" in state  # in OpenAI's archives alone
        model = _activated(model, activation, told, say)
    recipe: dict[str, Any] = {"model": model}
    if task := layout.task(model):
        recipe["task"] = task
    if tokenizer is not None:
        recipe["tokenizer"] = {"type": layout.tokenizer, "path": vocab or "published"}
    return Plan(source, target, layout, files, original, model, recipe, tokenizer, precision)


def carry(plan: Plan) -> dict[str, Any]:
    """Write what was planned; returns what it is. Raises as `import_`."""
    layout = plan.layout
    state, files = gather(plan.source)
    _, state = recognize(state)
    _, tensors = import_state(state, configuration(layout, files[0]))
    dtype = TYPES[plan.precision] if plan.precision else None
    checkpoint.save(plan.target, tensors, plan.recipe, plan.tokenizer, dtype=dtype, source=layout.name)
    return {
        "path": str(plan.target),
        "layout": layout.name,
        "published": plan.original,
        "model": plan.model,
        "values": sum(tensor.numel() for tensor in tensors.values()),
        "types": _types(tensors) if dtype is None else plan.precision,
        "entries": plan.tokenizer.vocab_size if plan.tokenizer else None,
    }


def _reads(model: dict) -> bool:
    """Whether a model reads texts, or what a CLIP makes of them."""
    return model["type"] == "diffusion-prior" or "text" in model or "text" in (model.get("conditions") or {})


def _types(tensors: dict[str, Tensor]) -> str:
    counts = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _activated(model: dict, activation: str | None, told: bool, say: Callable[[str], Any]) -> dict:
    """A CLIP's node with its towers' activation."""
    if activation is None:
        if not told and (model.get("image") or {"type": "vit"})["type"] == "vit":
            say("nothing beside the weights tells their activation: quick-gelu, as OpenAI's; else --activation gelu")
        return model
    activated = [name for name in ("image", "text") if model.get(name, {}).get("type") in ("vit", "clip-text")]
    return model | {name: model[name] | {"activation": activation} for name in activated}


def _tokenizer(layout: Layout, model: dict, vocab: str | None, folder: Path) -> Any:
    """The tokenizer of an imported model: of --vocab, beside the weights, or where this machine has the published one.

    Raises TextError when there is none, or it is one of another model.
    """
    assert layout.tokenizer is not None
    path = _vocabulary(layout.tokenizer, vocab, folder)
    try:
        tokenizer = tokenizers.build({"type": layout.tokenizer, "path": path}, "tokenizer")
    except TextError as error:
        raise TextError(f"give --vocab FILE: {error}" if path == "published" else str(error)) from None
    entries = (model.get("text") or (model.get("conditions") or {}).get("text") or {}).get("vocab_size")
    if entries is None:  # of a CLIP that is not here
        return tokenizer
    if tokenizer.vocab_size > entries or (tokenizer.vocab_size < entries and not tokenizer.published):
        raise Failure(
            f"{path}: a vocabulary of {tokenizer.vocab_size} entries, where the model has {entries}", BAD_INPUT
        )
    return tokenizer


def _vocabulary(kind: str, vocab: str | None, folder: Path) -> str:
    """Where the vocabulary of a kind of tokenizer is; a folder may hold that of another kind too."""
    if vocab and not Path(vocab).is_dir():
        return vocab
    for place in (Path(vocab),) if vocab else (folder, folder.parent / "tokenizer"):
        if beside := in_folder(place, VOCABULARIES[kind]):
            return str(beside)
    return vocab or "published"
