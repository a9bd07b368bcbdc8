"""The task of a training recipe without weights, even where some of what it needs is not on this machine."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from torch import nn

from .. import checkpoint, recipe
from ..models import models
from ..nn import meta_init
from ..recipe import Recipe
from ..text import TextError, tokenizers
from .run_tokenizer import find_number, is_missing

# For missing frozen models: recipes of published ones, by family; the first that fits is the substitute.
PUBLISHED = {"dvae": ("openai",), "clip": ("vit-l14", "vit-h16", "vit-b32")}


@dataclass(frozen=True)
class MetaTask:
    """A model and its task on the meta device; task is None where there is no substitute for what is missing.

    frozen: the frozen models, None for those not on this machine. substitutes: what replaces them and the tokenizer.
    """

    model: nn.Module
    task: Any
    frozen: dict[str, nn.Module | None]
    substitutes: list[str]


def compose_meta(found: Recipe, needs: list[str]) -> MetaTask:
    """Compose a recipe as far as possible; add to `needs` what is missing. Raises RecipeError for what does not fit.

    needs: keys of the recipe that are already known to be missing, such as tokenizer.path.
    """
    tokenizer: Any = None
    substitutes = []
    frozen: dict[str, nn.Module | None] = {}
    models_by_name: dict[str, nn.Module] = {}
    with meta_init.on_meta_device():
        if found.get("tokenizer"):
            try:
                if "tokenizer.path" not in needs:
                    tokenizer = tokenizers.build(found["tokenizer"], "tokenizer")
            except TextError as error:
                if not is_missing(found):
                    needs.append(f"tokenizer: {error}")
        for name, source in recipe.section(found, "frozen").items():
            frozen[name] = None
            try:
                if f"frozen.{name}" not in needs:
                    path = checkpoint.resolve(str(source))
                    frozen[name] = models.build(checkpoint.metadata(path)["recipe"].get("model"), f"frozen.{name}")
            except checkpoint.CheckpointError as error:
                needs.append(f"frozen.{name}: {error}")
            model = frozen[name]
            if model is None and (node := _published(name, found["model"])):
                model = models.build(node, f"frozen.{name}")
                substitutes.append(f"the published {name} of {_count(model) / 1e6:.1f}M parameters")
            if model is not None:
                models_by_name[name] = model
        if found.get("tokenizer") and tokenizer is None:
            text: Any = getattr(
                models_by_name.get("clip"), "text", None
            )  # whose vocabulary is that of what reads its texts
            if size := find_number(found["model"], "vocab_size") or getattr(text, "vocab_size", 0):
                tokenizer = SimpleNamespace(vocab_size=size)
                learned = ", which the run learns from its captions" if is_missing(found) else ""
                substitutes.insert(0, f"a vocabulary of {size} entries{learned}")
        if len(models_by_name) < len(frozen) or (found.get("tokenizer") and tokenizer is None):
            return MetaTask(models.build(found["model"], "model"), None, frozen, substitutes)
        task: Any = checkpoint.compose(found, tokenizer, models_by_name)
    return MetaTask(task.model, task, frozen, substitutes)


def _published(name: str, model: dict) -> dict | None:
    """Return the recipe of the published model that fits a model; None where there is none."""
    for published in PUBLISHED.get(name, ()):
        node = recipe.load(published, name, complete=False)["model"]
        if name == "dvae":
            return {**node, "vocab_size": model.get("image_vocab_size", node["vocab_size"])}
        if node["embed_dim"] == find_number(model, "embed_dim"):
            return node
    return None


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
