"""CLIP as Hugging Face's transformers keeps it (class CLIPModel): q, k and v apart, both towers as modules.

Heads and activations are in the config.json next to the weights; without it they are as in OpenAI's models.
"""

import math

import torch
from torch import Tensor

from ..layout import ConvertError, Row, State, count_layers

ACTIVATIONS = {"quick_gelu": "quick-gelu", "gelu": "gelu"}
EPS = 1e-5  # of layer norms; torch's and ours
LOGIT_SCALE = 100.0  # of all of OpenAI's trained models: its upper bound (Radford et al. 2021, section 2.5)
TOWERS = {"image": "vision", "text": "text"}


def has_clip_keys(state: State) -> bool:
    """Return whether a state is that of a CLIP or of one of its towers."""
    return any(f"{tower}_model.embeddings.position_embedding.weight" in state for tower in ("text", "vision"))


def model_node(state: State) -> dict:
    """Return the recipe node of both towers or of one; without a logit scale it has that of all published models."""
    model: dict = {"type": "clip"}
    if "vision_model.embeddings.position_embedding.weight" in state:
        model |= {"embed_dim": len(state["visual_projection.weight"]), "image": _vision(state)}
    if "text_model.embeddings.position_embedding.weight" in state:
        model |= {"embed_dim": len(state["text_projection.weight"]), "text": _text(state)}
    if "logit_scale" not in state:
        return model | {"fixed_logit_scale": LOGIT_SCALE}
    for ours, tower in TOWERS.items():
        if ours not in model:
            raise ConvertError(
                f"the {tower} tower is missing; the other tower has no logit_scale when published separately"
            )
    return model


def _vision(state: State) -> dict:
    width, _, _, patch = state["vision_model.embeddings.patch_embedding.weight"].shape
    grid = math.isqrt(len(state["vision_model.embeddings.position_embedding.weight"]) - 1)
    return {
        "type": "vit",
        "size": patch * grid,
        "patch_size": patch,
        "width": width,
        "depth": count_layers(state, r"vision_model\.encoder\.layers\.(\d+)\."),
        "heads": max(1, width // 64),
    }


def _text(state: State) -> dict:
    vocab, width = state["text_model.embeddings.token_embedding.weight"].shape
    return {
        "type": "clip-text",
        "vocab_size": vocab,
        "context_length": len(state["text_model.embeddings.position_embedding.weight"]),
        "width": width,
        "depth": count_layers(state, r"text_model\.encoder\.layers\.(\d+)\."),
        "heads": max(1, width // 64),
    }


def _join(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def _split(whole: Tensor) -> tuple[Tensor, ...]:
    return whole.chunk(3)


BLOCK = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2"} | {
    **{"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"},
}


def key_table(model: dict) -> list[Row]:
    """Return the rows of a CLIP, or of one of its towers."""
    if "image" in model and model["image"]["type"] != "vit":
        raise ConvertError(f"this layout cannot hold an image tower of type '{model['image']['type']}'")
    rows = [
        Row(r"image_projection\.(.+)", r"visual_projection.\1"),
        Row(r"text_projection\.weight", "text_projection.weight"),
        Row("logit_scale", "logit_scale"),
        Row(r"visual\.class_embedding", r"vision_model.embeddings.class_embedding"),
        Row(r"visual\.conv1\.weight", r"vision_model.embeddings.patch_embedding.weight"),
        Row(r"visual\.ln_pre\.(.+)", r"vision_model.pre_layrnorm.\1"),  # transformers' spelling
        Row(r"visual\.ln_post\.(.+)", r"vision_model.post_layernorm.\1"),
        Row(r"text\.token_embedding\.weight", r"text_model.embeddings.token_embedding.weight"),
        Row(r"text\.ln_final\.(.+)", r"text_model.final_layer_norm.\1"),
    ]
    for ours, tower in (("visual", "vision_model"), ("text", "text_model")):
        block, layer = rf"{ours}\.transformer\.resblocks\.(\d+)\.", rf"{tower}.encoder.layers.\1."
        qkv = tuple(rf"{layer}self_attn.{part}_proj.\2" for part in "qkv")
        rows += [
            Row(rf"{ours}\.positional_embedding", f"{tower}.embeddings.position_embedding.weight"),
            Row(rf"{block}attn\.in_proj_(weight|bias)", qkv, _join, _split),
            *(Row(rf"{block}{part}\.(weight|bias)", rf"{layer}{name}.\2") for part, name in BLOCK.items()),
        ]
    return rows


def read_config(model: dict, config: dict) -> dict:
    """Complete a model node with the heads and activations of a config.json, or else transformers' defaults."""
    node = dict(model)
    for ours, name, heads in (("image", "vision_config", 12), ("text", "text_config", 8)):
        if ours not in model:
            continue
        part = config.get(name, config if len(TOWERS.keys() & model.keys()) == 1 else {})  # of one tower it is flat
        activation = part.get("hidden_act", "quick_gelu")
        if activation not in ACTIVATIONS:
            raise ConvertError(f"{name}.hidden_act: '{activation}' is not supported")
        if part.get("layer_norm_eps", EPS) != EPS:
            raise ConvertError(f"{name}.layer_norm_eps: {part['layer_norm_eps']} is not supported, only {EPS}")
        node[ours] = {**model[ours], "heads": part.get("num_attention_heads", heads)}
        if activation != "quick_gelu":
            node[ours]["activation"] = ACTIVATIONS[activation]
    return node


def write_config(model: dict) -> dict:
    """Return the content of a config.json, flat for one tower."""
    towers = {"image": vision_config, "text": text_config}
    parts = {name: of(model) for name, of in towers.items() if name in model}
    if len(parts) == 1:
        return next(iter(parts.values()))
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": model["embed_dim"],
        "vision_config": parts["image"],
        "text_config": parts["text"],
    }


def _tower(model: dict, part: dict) -> dict:
    names = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
    return {
        "hidden_size": part["width"],
        "intermediate_size": 4 * part["width"],
        "num_hidden_layers": part["depth"],
        "num_attention_heads": part["heads"],
        "hidden_act": names[part.get("activation", "quick-gelu")],
        "layer_norm_eps": EPS,
        "projection_dim": model["embed_dim"],
    }


def vision_config(model: dict) -> dict:
    """Return the configuration of a CLIPVisionModelWithProjection."""
    image = model["image"]
    return _tower(model, image) | {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "image_size": image["size"],
        "patch_size": image["patch_size"],
    }


def text_config(model: dict) -> dict:
    """Return the configuration of a CLIPTextModelWithProjection."""
    text = model["text"]
    return _tower(model, text) | {
        "architectures": ["CLIPTextModelWithProjection"],
        "model_type": "clip_text_model",
        "vocab_size": text["vocab_size"],
        "max_position_embeddings": text["context_length"],
        "bos_token_id": text["vocab_size"] - 2,
        "eos_token_id": text["vocab_size"] - 1,
        "pad_token_id": text["vocab_size"] - 1,
    }


POSITIONS = frozenset(f"{tower}_model.embeddings.position_ids" for tower in TOWERS.values())
