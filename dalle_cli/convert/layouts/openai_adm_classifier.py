"""ADM's classifiers of noised images (github.com/openai/guided-diffusion)."""

import math
import re

from ..layout import Layout, Row, State, count_layers
from ..networks.adm_unet import HEAD_DIM, assumed, encoder_sizes, to_convolution, to_linear, unet_table


def _recognizes(state: State) -> bool:
    return "out.2.qkv_proj.weight" in state and "input_blocks.0.0.weight" in state


def _model(state: State) -> dict:
    inputs = count_layers(state, r"input_blocks\.(\d+)\.0\.")
    attention = ["1" if f"input_blocks.{i}.1.qkv.weight" in state else "0" for i in range(inputs)]
    blocks = len(re.findall("1+", "".join(attention))[0])  # a level has attention after each of its blocks, or none
    levels = inputs // (blocks + 1)
    grid = math.isqrt(state["out.2.positional_embedding"].shape[1] - 1)
    return {
        "type": "classifier",
        "size": grid * 2 ** (levels - 1),
        "classes": len(state["out.2.c_proj.weight"]),
        **encoder_sizes(state, levels, blocks),
        "head_dim": HEAD_DIM,
        "attention_order": "legacy",
    }


def _table(model: dict) -> list[Row]:
    return unet_table([Row(r"(out\.2\.(?:qkv_proj|c_proj)\.weight)", r"\1", to_linear, to_convolution)])


LAYOUT = Layout(
    name="openai-adm-classifier",
    type="classifier",
    recognizes=_recognizes,
    model=_model,
    table=_table,
    assumed=lambda model, state: assumed(model, 128),
    task=lambda model: {"type": "classifier", "schedule": "cosine" if model["size"] == 64 else "linear"},
)
