"""CLIP in the key layout of OpenAI's code (github.com/openai/CLIP, clip/model.py), which open_clip shares.

Heads and activation are not stored in the weights: they are as in OpenAI's models unless open_clip_config.json tells.
"""

import math
from collections.abc import Callable

from torch import Tensor

from ...models.clip import MEAN, STD
from ..layout import ConvertError, Row, State, count_layers

HEAD_DIM = 64  # of OpenAI's models, by tower of these widths
WIDTHS = {"vit": (768, 1024), "modified-resnet": (64, 80, 96, 128), "clip-text": (512, 640, 768, 1024)}
FILES = {"file": "open_clip_config.json", "weights": "open_clip_model.safetensors"}


def has_clip_keys(prefix: str) -> Callable[[State], bool]:
    """Return a function that says whether a state is a CLIP's. prefix: of the keys of its text tower."""

    def recognizes(state: State) -> bool:
        has_image_tower = "visual.proj" in state or "visual.attnpool.q_proj.weight" in state
        return has_image_tower and f"{prefix}token_embedding.weight" in state

    return recognizes


def model_node(state: State) -> dict:
    """Return the recipe node of a CLIP, from its keys and shapes; heads have 64 channels."""
    return {
        "type": "clip",
        "embed_dim": state["text_projection"].shape[1],
        "image": _vit(state) if "visual.proj" in state else _resnet(state),
        "text": _text(state),
    }


def assumed(model: dict, state: State) -> tuple[str, ...]:
    """Return the recipe keys that weights do not store; none for OpenAI's archives, which `input_resolution` marks."""
    if "input_resolution" in state:
        return ()
    towers = [name for name in ("image", "text") if name in model]
    heads = [name for name in towers if model[name]["width"] not in WIDTHS[model[name]["type"]]]
    activations = [name for name in towers if model[name]["type"] != "modified-resnet"]
    return (*(f"model.{name}.heads" for name in heads), *(f"model.{name}.activation" for name in activations))


def _vit(state: State) -> dict:
    width, _, _, patch_size = state["visual.conv1.weight"].shape
    return {
        "type": "vit",
        "size": patch_size * math.isqrt(len(state["visual.positional_embedding"]) - 1),
        "patch_size": patch_size,
        "width": width,
        "depth": count_layers(state, r"visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_weight"),
        "heads": max(1, width // HEAD_DIM),
    }


def _resnet(state: State) -> dict:
    width = len(state["visual.layer1.0.conv1.weight"])
    return {
        "type": "modified-resnet",
        "size": 32 * math.isqrt(len(state["visual.attnpool.positional_embedding"]) - 1),
        "layers": [count_layers(state, rf"visual\.layer{stage}\.(\d+)\.conv1\.weight") for stage in (1, 2, 3, 4)],
        "width": width,
        "heads": max(1, width * 32 // HEAD_DIM),
    }


def _text(state: State) -> dict:
    vocab_size, width = state["token_embedding.weight"].shape
    return {
        "type": "clip-text",
        "vocab_size": vocab_size,
        "context_length": len(state["positional_embedding"]),
        "width": width,
        "depth": count_layers(state, r"transformer\.resblocks\.(\d+)\.attn\.in_proj_weight"),
        "heads": max(1, width // HEAD_DIM),
    }


def _transpose(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous()


def key_table(model: dict, prefix: str = "") -> list[Row]:
    """Return the rows of a CLIP. prefix: of the published keys of its text tower."""
    projection = {
        "vit": Row(r"image_projection\.weight", r"visual.proj", _transpose, _transpose),
        "modified-resnet": Row(r"image_projection\.(.+)", r"visual.attnpool.c_proj.\1"),
    }
    if model["image"]["type"] not in projection:
        raise ConvertError(f"this layout cannot hold an image tower of type '{model['image']['type']}'")
    return [
        projection[model["image"]["type"]],
        Row(r"text_projection\.weight", rf"{prefix}text_projection", _transpose, _transpose),
        Row(r"text\.(.+)", rf"{prefix}\1"),
        Row(r"(visual\..+|logit_scale)", r"\1"),
    ]


def read_config(model: dict, config: dict) -> dict:
    """Complete a model node with the heads and the activation of an open_clip_config.json."""
    config, preprocess = config["model_cfg"], config.get("preprocess_cfg") or {}
    vision, text = config["vision_cfg"], config["text_cfg"]
    supported = {
        "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"},
        "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
    }
    for part, names in supported.items():
        for name, value in config[part].items():
            if name not in names and value:
                raise ConvertError(f"{part}.{name}: {value} is not supported")
    for name, ours in (("mean", MEAN), ("std", STD)):
        if tuple(preprocess.get(name) or ours) != ours:
            raise ConvertError(f"preprocess_cfg.{name}: {preprocess[name]} is not supported, only {list(ours)}")
    image, head_width = model["image"], vision.get("head_width") or 64
    pooled = image["width"] * (32 if image["type"] == "modified-resnet" else 1)
    activation = {} if config.get("quick_gelu") else {"activation": "gelu"}
    return model | {
        "image": image | {"heads": pooled // head_width} | (activation if image["type"] == "vit" else {}),
        "text": model["text"] | {"heads": text["heads"]} | activation,
    }


def write_config(model: dict, custom_text: bool = False) -> dict:
    """Return the content of an open_clip_config.json. custom_text: the text tower is a module of its own."""
    image, text = model["image"], model["text"]
    activations = {part.get("activation", "quick-gelu") for part in (image, text) if part["type"] != "modified-resnet"}
    if len(activations) > 1:
        raise ConvertError("this layout cannot hold towers with different activations")
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
