"""OpenAI's CLIP, and open_clip's files of the same layout (github.com/openai/CLIP, clip/model.py)."""

import math

from torch import Tensor

from .keys import ConvertError, Row, Source, State, count


def _recognises(state: State) -> bool:
    tower = "visual.proj" in state or "visual.attnpool.q_proj.weight" in state
    return tower and "token_embedding.weight" in state


def _model(state: State) -> dict:
    return {
        "type": "clip",
        "embed_dim": state["text_projection"].shape[1],
        "image": _vit(state) if "visual.proj" in state else _resnet(state),
        "text": _text(state),
    }


def _vit(state: State) -> dict:
    width, _, _, patch = state["visual.conv1.weight"].shape
    grid = math.isqrt(len(state["visual.positional_embedding"]) - 1)
    depth = count(state, r"visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_weight")
    heads = max(1, width // 64)
    return {"type": "vit", "size": patch * grid, "patch": patch, "width": width, "depth": depth, "heads": heads}


def _resnet(state: State) -> dict:
    layers = [count(state, rf"visual\.layer{stage}\.(\d+)\.conv1\.weight") for stage in (1, 2, 3, 4)]
    width = len(state["visual.layer1.0.conv1.weight"])
    grid = math.isqrt(len(state["visual.attnpool.positional_embedding"]) - 1)
    heads = max(1, width * 32 // 64)
    return {"type": "modified-resnet", "size": 32 * grid, "layers": layers, "width": width, "heads": heads}


def _text(state: State) -> dict:
    vocab, width = state["token_embedding.weight"].shape
    depth = count(state, r"transformer\.resblocks\.(\d+)\.attn\.in_proj_weight")
    context, heads = len(state["positional_embedding"]), max(1, width // 64)
    return {"type": "clip-text", "vocab": vocab, "context": context, "width": width, "depth": depth, "heads": heads}


def _transpose(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous()


def _table(model: dict) -> list[Row]:
    projection = {
        "vit": Row(r"image_projection\.weight", r"visual.proj", _transpose, _transpose),
        "modified-resnet": Row(r"image_projection\.(.+)", r"visual.attnpool.c_proj.\1"),
    }
    if model["image"]["type"] not in projection:
        raise ConvertError(f"no place for an image tower of type '{model['image']['type']}' in this layout")
    return [
        projection[model["image"]["type"]],
        Row(r"text_projection\.weight", r"text_projection", _transpose, _transpose),
        Row(r"text\.(.+)", r"\1"),
        Row(r"(visual\..+|logit_scale)", r"\1"),
    ]


SOURCES = (
    Source(
        name="openai-clip",
        type="clip",
        recognises=_recognises,
        model=_model,
        table=_table,
        dropped=frozenset({"input_resolution", "context_length", "vocab_size"}),
    ),
)
