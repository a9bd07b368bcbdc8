"""CLIP in the key layout of OpenAI's code (github.com/openai/CLIP, clip/model.py), which open_clip shares.

Heads and activation are not stored in the weights: they are as in OpenAI's models unless open_clip_config.json tells.
"""

import math
from collections.abc import Callable

from torch import Tensor

from ...models.clip import MEAN, STD
from ..layout import ConvertError, Row, State, count_layers

FILES = {"file": "open_clip_config.json", "weights": "open_clip_model.safetensors"}


def has_clip_keys(prefix: str) -> Callable[[State], bool]:
    """Return whether a state is a CLIP's; prefix: what comes before the keys of its text tower."""

    def recognizes(state: State) -> bool:
        tower = "visual.proj" in state or "visual.attnpool.q_proj.weight" in state
        return tower and f"{prefix}token_embedding.weight" in state

    return recognizes


def model_node(state: State) -> dict:
    return {
        "type": "clip",
        "embed_dim": state["text_projection"].shape[1],
        "image": _vit(state) if "visual.proj" in state else _resnet(state),
        "text": _text(state),
    }


def _vit(state: State) -> dict:
    width, _, _, patch = state["visual.conv1.weight"].shape
    grid = math.isqrt(len(state["visual.positional_embedding"]) - 1)
    depth = count_layers(state, r"visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_weight")
    heads = max(1, width // 64)
    return {"type": "vit", "size": patch * grid, "patch_size": patch, "width": width, "depth": depth, "heads": heads}


def _resnet(state: State) -> dict:
    layers = [count_layers(state, rf"visual\.layer{stage}\.(\d+)\.conv1\.weight") for stage in (1, 2, 3, 4)]
    width = len(state["visual.layer1.0.conv1.weight"])
    grid = math.isqrt(len(state["visual.attnpool.positional_embedding"]) - 1)
    heads = max(1, width * 32 // 64)
    return {"type": "modified-resnet", "size": 32 * grid, "layers": layers, "width": width, "heads": heads}


def _text(state: State) -> dict:
    vocab, width = state["token_embedding.weight"].shape
    depth = count_layers(state, r"transformer\.resblocks\.(\d+)\.attn\.in_proj_weight")
    context, heads = len(state["positional_embedding"]), max(1, width // 64)
    return {
        "type": "clip-text",
        "vocab_size": vocab,
        "context_length": context,
        "width": width,
        "depth": depth,
        "heads": heads,
    }


def _transpose(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous()


def key_table(model: dict, prefix: str = "") -> list[Row]:
    projection = {
        "vit": Row(r"image_projection\.weight", r"visual.proj", _transpose, _transpose),
        "modified-resnet": Row(r"image_projection\.(.+)", r"visual.attnpool.c_proj.\1"),
    }
    if model["image"]["type"] not in projection:
        raise ConvertError(f"no place for an image tower of type '{model['image']['type']}' in this layout")
    return [
        projection[model["image"]["type"]],
        Row(r"text_projection\.weight", rf"{prefix}text_projection", _transpose, _transpose),
        Row(r"text\.(.+)", rf"{prefix}\1"),
        Row(r"(visual\..+|logit_scale)", r"\1"),
    ]


def read_config(model: dict, config: dict) -> dict:
    """A model node with the heads and the activation of an open_clip_config.json."""
    config, preprocess = config["model_cfg"], config.get("preprocess_cfg") or {}
    vision, text = config["vision_cfg"], config["text_cfg"]
    known = {
        "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"},
        "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
    }
    for part, names in known.items():
        for name, value in config[part].items():
            if name not in names and value:
                raise ConvertError(f"{part}.{name}: {value} is nothing that our CLIP can be told")
    for name, ours in (("mean", MEAN), ("std", STD)):
        if tuple(preprocess.get(name) or ours) != ours:
            raise ConvertError(f"preprocess_cfg.{name}: {preprocess[name]}, where our CLIP has {list(ours)}")
    image, head_width = model["image"], vision.get("head_width") or 64
    pooled = image["width"] * (32 if image["type"] == "modified-resnet" else 1)
    activation = {} if config.get("quick_gelu") else {"activation": "gelu"}
    return model | {
        "image": image | {"heads": pooled // head_width} | (activation if image["type"] == "vit" else {}),
        "text": model["text"] | {"heads": text["heads"]} | activation,
    }


def write_config(model: dict, custom_text: bool = False) -> dict:
    image, text = model["image"], model["text"]
    activations = {part.get("activation", "quick-gelu") for part in (image, text) if part["type"] != "modified-resnet"}
    if len(activations) > 1:
        raise ConvertError("no place for towers of different activations in this layout")
    if image["type"] == "vit":
        vision = {"layers": image["depth"], "width": image["width"], "patch_size": image["patch_size"]}
        pooled = image["width"]
    else:
        vision = {"layers": image["layers"], "width": image["width"], "patch_size": None}
        pooled = 32 * image["width"]
    return {
        "model_cfg": {
            "embed_dim": model["embed_dim"],
            "quick_gelu": activations == {"quick-gelu"},
            "custom_text": custom_text,
            "vision_cfg": {"image_size": image["size"], **vision, "head_width": pooled // image["heads"]},
            "text_cfg": {
                "context_length": text["context_length"],
                "vocab_size": text["vocab_size"],
                "width": text["width"],
                "heads": text["heads"],
                "layers": text["depth"],
            },
        },
        "preprocess_cfg": {"mean": list(MEAN), "std": list(STD)},
    }
