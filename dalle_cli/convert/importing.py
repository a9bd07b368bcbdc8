"""Import published weights as a checkpoint, with the recipe that their shapes give and the tokenizer they need."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import checkpoint
from ..exits import BAD_INPUT, USAGE, WOULD_OVERWRITE, Failure
from ..text import TextError, tokenizers
from ..text.vocabulary import in_folder
from . import dtypes
from .files import hub
from .files.opening import Weights, open_weights
from .layout import ConvertError, Layout, training_only
from .recognition import complete, convert_tensors, make_recipe, value_at

VOCABULARIES = {
    "clip": ("merges.txt", "bpe_simple_vocab_16e6.txt", "tokenizer.json"),
    "glide": ("vocab.bpe", "merges.txt", "tokenizer.json"),
}
ACTIVATIONS = ("quick-gelu", "gelu")
Log = Callable[[str], Any]


@dataclass(frozen=True)
class ImportOptions:
    """What an import is asked to do besides its source and its target.

    vocab: the vocabulary's file or folder, None to look for it. precision: of the weights, None to keep theirs.
    activation: of a CLIP's towers. overrides: words such as `model.head_dim=32`; for a system, with the name of a part
    before them. overwrite: replace existing files.
    """

    vocab: str | None = None
    precision: str | None = None
    activation: str | None = None
    overrides: Sequence[str] = ()
    overwrite: bool = False

    def check(self) -> None:
        """Raise Failure for a choice that does not exist."""
        dtypes.parse(self.precision)
        if self.activation is not None and self.activation not in ACTIVATIONS:
            raise Failure(f"--activation {self.activation}: choose one of {', '.join(ACTIVATIONS)}", USAGE)


@dataclass(frozen=True)
class ImportPlan:
    """What an import will write; all that can be checked before numbers are read is checked.

    published: the name of the published file that the source is, None for an unknown checksum.
    """

    weights: Weights
    target: Path
    published: str | None
    recipe: dict[str, Any]
    tokenizer: Any
    precision: str | None

    @property
    def model(self) -> dict[str, Any]:
        """The recipe's model node."""
        return self.recipe["model"]

    @property
    def layout(self) -> Layout:
        """The layout of the weights."""
        return self.weights.layout


def import_weights(source: str, out: str, options: ImportOptions, log: Log) -> dict[str, Any]:
    """Write the checkpoint of published weights; returns a description of it.

    source: a file, a folder, or `hf:...` of the Hugging Face hub (hub.py). out: a folder, or a file that ends in
    .safetensors. Raises ConvertError, TextError, CheckpointError, RecipeError, Failure.
    """
    options.check()
    target = Path(out) if out.endswith(".safetensors") else Path(out) / checkpoint.FILE
    check_free(target, options.overwrite)
    return write_checkpoint(plan_import(open_weights(hub.fetch_source(source, log)), target, options, log))


def check_free(target: Path, overwrite: bool) -> None:
    """Raise Failure where a target exists and may not be overwritten."""
    if target.exists() and not overwrite:
        raise Failure(f"{target} exists; add --overwrite, or choose another --out", WOULD_OVERWRITE)


def plan_import(weights: Weights, target: Path, options: ImportOptions, log: Log) -> ImportPlan:
    """Make the recipe of opened weights and find their tokenizer; no number is read. Raises as `import_weights`."""
    layout, state = weights.layout, weights.state
    overrides = list(options.overrides)
    if options.activation and layout.type == "clip":
        overrides = [*_activation_words(weights, options.activation), *overrides]
    try:
        recipe = make_recipe(layout, state, weights.config, overrides)
        convert_tensors(layout, recipe["model"], dict(state))
    except ConvertError as error:
        raise ConvertError(f"{weights.path}: {error}") from None
    if left_out := training_only(layout, state):
        log(f"{weights.path}: {len(left_out)} tensors that only training needs were left out ({left_out[0]}, ...)")
    tokenizer = None
    if layout.tokenizer and _has_text(recipe["model"]):
        tokenizer = _tokenizer(layout, recipe["model"], options.vocab, weights.path.parent)
        recipe["tokenizer"] = {"type": layout.tokenizer, "path": options.vocab or "published"}
    published = weights.published_name()
    if published is None and weights.path.name in layout.checksums.values():
        log(f"{weights.path}: its checksum is not that of the published {weights.path.name}")
    if published is None:
        _log_assumptions(weights, recipe, overrides, log)
    return ImportPlan(weights, target, published, recipe, tokenizer, options.precision)


def _activation_words(weights: Weights, activation: str) -> list[str]:
    """Overrides that set the activation of the towers that have one."""
    model = make_recipe(weights.layout, weights.state, weights.config)["model"]
    towers = [name for name in ("image", "text") if model.get(name, {}).get("type") in ("vit", "clip-text")]
    return [f"model.{name}.activation={activation}" for name in towers]


def _log_assumptions(weights: Weights, recipe: dict, overrides: Sequence[str], log: Log) -> None:
    """Log what neither the weights nor a configuration nor an override says."""
    if weights.config is not None:
        return
    model = complete(recipe["model"])
    given = {word.partition("=")[0].strip() for word in overrides}
    keys = [key for key in weights.layout.assumed(recipe["model"], weights.state) if key not in given]
    if keys:
        values = " ".join(f"{key}={value_at({'model': model}, key)}" for key in keys)
        log(
            f"{weights.path}: the weights do not store {values}, the values of the published models; "
            "where the authors give others, add them to the command"
        )


def write_checkpoint(plan: ImportPlan) -> dict[str, Any]:
    """Write what was planned; returns a description of it. Raises as `import_weights`."""
    tensors = convert_tensors(plan.layout, plan.model, plan.weights.load())
    dtype = dtypes.parse(plan.precision)
    checkpoint.save(plan.target, tensors, plan.recipe, plan.tokenizer, dtype=dtype, source=plan.layout.name)
    return {
        "path": str(plan.target),
        "layout": plan.layout.name,
        "published": plan.published,
        "model": plan.model,
        "num_parameters": sum(tensor.numel() for tensor in tensors.values()),
        "dtypes": _count_dtypes(tensors, dtype),
        "vocab_size": plan.tokenizer.vocab_size if plan.tokenizer else None,
    }


def _has_text(model: dict) -> bool:
    """Whether a model reads texts, or their CLIP embeddings."""
    return model["type"] == "diffusion-prior" or "text" in model or "text" in (model.get("conditions") or {})


def _count_dtypes(tensors: dict[str, Tensor], dtype: Any) -> dict[str, int]:
    """The number of tensors by dtype, as they are written."""
    written = (dtype if dtype and tensor.is_floating_point() else tensor.dtype for tensor in tensors.values())
    return dict(Counter(map(dtypes.name, written)).most_common())


def _tokenizer(layout: Layout, model: dict, vocab: str | None, folder: Path) -> Any:
    """The tokenizer of an imported model, its vocabulary from --vocab, from next to the weights, or as published.

    Raises TextError when there is none, Failure when it does not fit the model.
    """
    assert layout.tokenizer is not None
    path = _vocabulary(layout.tokenizer, vocab, folder)
    try:
        tokenizer = tokenizers.build({"type": layout.tokenizer, "path": path}, "tokenizer")
    except TextError as error:
        raise TextError(f"give --vocab FILE: {error}" if path == "published" else str(error)) from None
    size = (model.get("text") or (model.get("conditions") or {}).get("text") or {}).get("vocab_size")
    if size is None:  # the model reads the embeddings of a CLIP that is not here
        return tokenizer
    if tokenizer.vocab_size > size or (tokenizer.vocab_size < size and not tokenizer.published):
        raise Failure(f"{path}: a vocabulary of {tokenizer.vocab_size} entries, where the model has {size}", BAD_INPUT)
    return tokenizer


def _vocabulary(kind: str, vocab: str | None, folder: Path) -> str:
    """Where the vocabulary of a kind of tokenizer is; a folder may hold that of another kind too."""
    if vocab and not Path(vocab).is_dir():
        return vocab
    for place in (Path(vocab),) if vocab else (folder, folder.parent / "tokenizer"):
        if file := in_folder(place, VOCABULARIES[kind]):
            return str(file)
    return vocab or "published"
