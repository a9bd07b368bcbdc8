"""`dalle show NAME --explain`: every key of a recipe with its value, type, default and a sentence."""

import inspect
import json
import typing
from collections.abc import Callable, Iterator
from typing import Any

Row = dict[str, Any]

# Keys that mean the same in every part that has them.
COMMON = {
    "width": "Channels of the hidden states.",
    "depth": "Number of blocks.",
    "heads": "Attention heads; they divide the width.",
    "embed_dim": "Width of the CLIP embedding.",
    "seed": "Seed of the random numbers.",
    "size": "Side of the square images, in pixels.",
    "patch_size": "Side of a patch, in pixels.",
    "vocab_size": "Entries of the text vocabulary.",
    "context_length": "Maximum number of text tokens.",
    "activation": "Activation function of the blocks.",
    "eps": "Term added to the denominator of the optimizer.",
    "compile": "Compile the model with torch.compile.",
    "dropout": "Dropout probability in training.",
    "gradient_checkpointing": "Recompute activations in the backward pass: less memory, a third more computation.",
    "base_channels": "Channels of the first level.",
    "channel_mult": "Factors of base_channels, one per level.",
    "num_res_blocks": "Residual blocks per level.",
    "groups": "Groups of blocks; each but the last halves the resolution.",
    "attention_factors": "Downsampling factors of the levels that have attention.",
    "attention_order": "Order of queries, keys and values in the published weights.",
    "middle_attention": "Use attention at the lowest level.",
    "position_bands": "Frequencies of the position encoding that is added to the input; 0: none.",
    "head_dim": "Channels of an attention head.",
    "classes": "Number of classes.",
    "tokens": "Context tokens made of the embedding.",
    "text_width": "Width of the CLIP's text states.",
    "factor": "Upsampling factor.",
    "resize": "Interpolation of the low-resolution image.",
    "image": "Image tower.",
    "text": "Text tower.",
    "fixed_logit_scale": "Logit scale that is not trained; null: it is trained.",
    "text_weight": "Weight of the loss of the text tokens; the image tokens have the rest.",
    "steps": "Timesteps of the diffusion process.",
    "schedule": "Noise schedule of the diffusion process.",
    "sampler": "Sampler of the diffusion process.",
    "up_steps": "As steps, for the upsampler.",
    "up_steps_2": "As steps, for the second upsampler.",
    "up_sampler": "As sampler, for the upsampler.",
    "up_sampler_2": "As sampler, for the second upsampler.",
    "top_k": "Sample only among the k most likely tokens.",
    "top_p": "Sample only among the most likely tokens whose probabilities reach p together.",
}


def explain(recipe: dict[str, Any]) -> list[Row]:
    """Return a row per key that a recipe can set: `key`, `value` (null if not set), `type`, `default`, `help`."""
    return [*_parts(recipe), *_plain(recipe)]


def lines(row: Row) -> tuple[str, str]:
    """Return a row as two lines of text."""
    default = "required" if row["required"] else f"default {_short(row['default'])}"
    value = f" = {_short(row['value'])}" if row["set"] else ""
    return f"{row['key']}{value}  ({row['type']}, {default})", f"    {row['help']}".rstrip()


def _parts(recipe: dict[str, Any]) -> Iterator[Row]:
    """Yield the keys of the sections that name registered parts, nested parts included."""
    from .. import data, tasks, text
    from ..data.section import SUPPLIED, Loading
    from ..models import models
    from ..registry import documented_keys

    if "model" in recipe:
        yield from _part(models, "model", recipe["model"])
    if "task" in recipe:
        part = tasks.tasks.get(recipe["task"]["type"])
        frozen = _modules(part) - {"model", "tokenizer"}
        yield from _part(tasks.tasks, "task", recipe["task"], {"model", "tokenizer", *frozen})
        for name in sorted(frozen):
            yield _row(
                f"frozen.{name}", recipe.get("frozen") or {}, name, "checkpoint", "A trained model, not updated."
            )
    if "tokenizer" in recipe:
        yield from _part(text.tokenizers, "tokenizer", recipe["tokenizer"])
    if "data" in recipe:
        common = documented_keys(Loading)
        taken = {*SUPPLIED, *(key.name for key in common)}
        yield from _part(data.sources, "data", recipe["data"], taken)
        yield from _keys("data", recipe["data"], common)


def _plain(recipe: dict[str, Any]) -> Iterator[Row]:
    """Yield the keys of the sections that the training loop, the learner of vocabularies or a system reads."""
    from ..registry import documented_keys
    from ..systems import systems
    from ..training import options, vocabulary

    if "task" in recipe:
        for section, kind in options.SECTIONS.items():
            yield from _keys(section, recipe.get(section) or {}, documented_keys(kind))
    if "learn" in recipe:
        yield from _keys("learn", recipe["learn"], documented_keys(vocabulary.Learn))
    if "system" in recipe:
        part: Any = systems.get(recipe["system"]["type"])
        parts = recipe.get("parts") or {}
        for key in documented_keys(part, {"device"}):
            text = key.text or f"Checkpoint of the {key.name.replace('_', ' ')}."
            yield _row(f"parts.{key.name}", parts, key.name, "checkpoint", text)
        yield from _keys("sample", recipe.get("sample") or {}, documented_keys(part.options_type))


def _part(
    registry: Any, path: str, node: dict[str, Any], given: set[str] | frozenset[str] = frozenset()
) -> Iterator[Row]:
    from ..registry import documented_keys

    part = registry.get(node["type"], f"{path}.type")
    kind = "part" if "." in path else " or ".join(registry.names())
    yield {
        "key": f"{path}.type", "value": node["type"], "set": True, "type": kind,
        "default": None, "required": True, "help": _first_sentence(part),
    }  # fmt: skip
    yield from _keys(path, node, documented_keys(part, given))
    for name, value in node.items():
        nested = {f"{path}.{name}": value} if isinstance(value, dict) and "type" in value else {}
        if isinstance(value, dict) and not nested:
            nested = {f"{path}.{name}.{key}": one for key, one in value.items() if isinstance(one, dict)}
        for inner_path, inner in nested.items():
            if "type" in inner:
                yield from _part(registry, inner_path, inner)


def _keys(path: str, node: dict[str, Any], keys: list[Any]) -> Iterator[Row]:
    for key in keys:
        value = node.get(key.name)
        yield {
            "key": f"{path}.{key.name}", "value": value, "set": key.name in node and not isinstance(value, dict),
            "type": key.type, "default": key.default, "required": key.required,
            "help": key.text or COMMON.get(key.name, ""),
        }  # fmt: skip


def _row(path: str, node: dict[str, Any], name: str, kind: str, text: str) -> Row:
    return {
        "key": path, "value": node.get(name), "set": name in node, "type": kind, "default": None, "required": False,
        "help": text,
    }  # fmt: skip


def _modules(part: Callable) -> set[str]:
    """Return the names of arguments that a recipe cannot write: built models and tokenizers."""
    from ..registry import type_name

    hints = typing.get_type_hints(part.__init__ if inspect.isclass(part) else part)
    return {name for name in inspect.signature(part).parameters if "part" in type_name(hints.get(name, int)).split()}


def _first_sentence(part: Any) -> str:
    return " ".join((inspect.getdoc(part) or "").partition("\n\n")[0].split())


def _short(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, default=str)
