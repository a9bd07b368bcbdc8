"""CLIP as Hugging Face's transformers keeps it (class CLIPModel): q, k and v apart, both towers as modules.

Heads and activations stand in the config.json beside the weights; without it they are as in OpenAI's models.
"""

import math

import torch
from torch import Tensor

from .keys import Config, ConvertError, Row, Source, State, count

ACTIVATIONS = {"quick_gelu": "quick-gelu", "gelu": "gelu"}
EPS = 1e-5  # of layer norms; torch's and ours


def _recognises(state: State) -> bool:
    return any(f"{tower}_model.embeddings.position_embedding.weight" in state for tower in ("text", "vision"))


def _model(state: State) -> dict:
    for tower in ("text", "vision"):
        if f"{tower}_model.embeddings.position_embedding.weight" not in state:
            raise ConvertError(f"the {tower} tower is missing; a CLIP of ours has both")
    width, _, _, patch = state["vision_model.embeddings.patch_embedding.weight"].shape
    vocab, text_width = state["text_model.embeddings.token_embedding.weight"].shape
    grid = math.isqrt(len(state["vision_model.embeddings.position_embedding.weight"]) - 1)
    return {
        "type": "clip",
        "embed_dim": len(state["text_projection.weight"]),
        "image": {
            "type": "vit",
            "size": patch * grid,
            "patch": patch,
            "width": width,
            "depth": count(state, r"vision_model\.encoder\.layers\.(\d+)\."),
            "heads": max(1, width // 64),
        },
        "text": {
            "type": "clip-text",
            "vocab": vocab,
            "context": len(state["text_model.embeddings.position_embedding.weight"]),
            "width": text_width,
            "depth": count(state, r"text_model\.encoder\.layers\.(\d+)\."),
            "heads": max(1, text_width // 64),
        },
    }


def _join(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def _split(whole: Tensor) -> tuple[Tensor, ...]:
    return whole.chunk(3)


IN_BLOCK = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2"} | {
    **{"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"},
}


def _table(model: dict) -> list[Row]:
    if model["image"]["type"] != "vit":
        raise ConvertError(f"no place for an image tower of type '{model['image']['type']}' in this layout")
    rows = [
        Row(r"image_projection\.(.+)", r"visual_projection.\1"),
        Row(r"(text_projection\.weight|logit_scale)", r"\1"),
        Row(r"visual\.class_embedding", r"vision_model.embeddings.class_embedding"),
        Row(r"visual\.conv1\.weight", r"vision_model.embeddings.patch_embedding.weight"),
        Row(r"visual\.ln_pre\.(.+)", r"vision_model.pre_layrnorm.\1"),  # spelled so
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
            *(Row(rf"{block}{part}\.(weight|bias)", rf"{layer}{name}.\2") for part, name in IN_BLOCK.items()),
        ]
    return rows


def _told(model: dict, config: dict) -> dict:
    """A model node with the heads and activations of a config.json; what it leaves out is transformers' default."""
    node = dict(model)
    for ours, theirs, heads in (("image", "vision_config", 12), ("text", "text_config", 8)):
        part = config.get(theirs) or {}
        activation = part.get("hidden_act", "quick_gelu")
        if activation not in ACTIVATIONS:
            raise ConvertError(f"{theirs}.hidden_act: '{activation}' is none that our CLIP has")
        if part.get("layer_norm_eps", EPS) != EPS:
            raise ConvertError(f"{theirs}.layer_norm_eps: {part['layer_norm_eps']}, where our CLIP has {EPS}")
        node[ours] = {**model[ours], "heads": part.get("num_attention_heads", heads)}
        if activation != "quick_gelu":
            node[ours]["activation"] = ACTIVATIONS[activation]
    return node


def _config(model: dict) -> dict:
    image, text = model["image"], model["text"]

    def tower(part: dict) -> dict:
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

    start, end = text["vocab"] - 2, text["vocab"] - 1
    tokens = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    vision = tower(image) | {"model_type": "clip_vision_model", "image_size": image["size"]}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": model["embed_dim"],
        "vision_config": vision | {"patch_size": image["patch"]},
        "text_config": tower(text)
        | {"model_type": "clip_text_model", "vocab_size": text["vocab"], "max_position_embeddings": text["context"]}
        | tokens,
    }


SOURCES = (
    Source(
        name="hf-clip",
        type="clip",
        recognises=_recognises,
        model=_model,
        table=_table,
        dropped=frozenset(f"{tower}_model.embeddings.position_ids" for tower in ("text", "vision")),
        task=lambda model: {"type": "clip"},
        tokenizer="clip",
        config=Config("config.json", "model.safetensors", _told, _config),
    ),
)
