"""The task of a training recipe as shapes without weights, also where not all that it needs is here."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from .. import checkpoint, recipe
from ..models import models
from ..recipe import Recipe
from ..text import TextError, tokenizers

PUBLISHED = {"dvae": "openai"}  # companions that may be missing: the recipe of the published one, of that family


@dataclass(frozen=True)
class Sketch:
    """model and task on the meta device; no task where nothing could stand in for what is missing.

    frozen: the companions, None for those that are not here. assumed: what stands in for them and for the tokenizer.
    """

    model: nn.Module
    task: Any
    frozen: dict[str, nn.Module | None]
    assumed: list[str]


def sketch(found: Recipe, needs: list[str]) -> Sketch:
    """Compose a recipe as far as that goes; adds to `needs` what is not here. Raises RecipeError for what does not fit.

    needs: places of the recipe that are open already, such as tokenizer.path.
    """
    tokenizer: Any = None
    assumed = []
    frozen: dict[str, nn.Module | None] = {}
    companions: dict[str, nn.Module] = {}
    with torch.device("meta"):
        if found.get("tokenizer"):
            try:
                if "tokenizer.path" not in needs:
                    tokenizer = tokenizers.build(found["tokenizer"], "tokenizer")
            except TextError as error:
                needs.append(f"tokenizer: {error}")
            if tokenizer is None and (size := _vocab(found["model"])):
                tokenizer = SimpleNamespace(vocab_size=size)
                assumed.append(f"a vocabulary of {size}")
        for name, source in recipe.section(found, "frozen").items():
            frozen[name] = None
            try:
                if f"frozen.{name}" not in needs:
                    path = checkpoint.resolve(str(source))
                    frozen[name] = models.build(checkpoint.metadata(path)["recipe"].get("model"), f"frozen.{name}")
            except checkpoint.CheckpointError as error:
                needs.append(f"frozen.{name}: {error}")
            companion = frozen[name]
            if companion is None and name in PUBLISHED:
                companion = models.build(_published(name, found["model"]), f"frozen.{name}")
                assumed.append(f"the published {name} of {_count(companion) / 1e6:.1f}M parameters")
            if companion is not None:
                companions[name] = companion
        if len(companions) < len(frozen) or (found.get("tokenizer") and tokenizer is None):
            return Sketch(models.build(found["model"], "model"), None, frozen, assumed)
        task: Any = checkpoint.compose(found, tokenizer, companions)
    return Sketch(task.model, task, frozen, assumed)


def _published(name: str, model: dict) -> dict:
    node = recipe.load(PUBLISHED[name], name, complete=False)["model"]
    return {**node, "vocab": model.get("codes", node["vocab"])}


def _vocab(model: dict) -> int:
    """The text vocabulary that a model is made for, wherever in it that stands."""
    for key, value in model.items():
        if key == "vocab":
            return int(value)
        if isinstance(value, dict) and (inside := _vocab(value)):
            return inside
    return 0


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
