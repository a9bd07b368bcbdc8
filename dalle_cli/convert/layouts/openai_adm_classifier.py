"""ADM's classifiers of noised images (github.com/openai/guided-diffusion)."""

import math
import re

from ..layout import Layout, Row, State, count_layers
from ..networks.adm_unet import encoder, table, to_convolution, to_linear


def _is_classifier(state: State) -> bool:
    return "out.2.qkv_proj.weight" in state and "input_blocks.0.0.weight" in state


def _classifier(state: State) -> dict:
    stages = count_layers(state, r"input_blocks\.(\d+)\.0\.")
    seeing = ["1" if f"input_blocks.{i}.1.qkv.weight" in state else "0" for i in range(stages)]
    blocks = len(re.findall("1+", "".join(seeing))[0])  # there is attention after each block of a level, or after none
    levels = stages // (blocks + 1)
    grid = math.isqrt(state["out.2.positional_embedding"].shape[1] - 1)
    return {
        "type": "classifier",
        "size": grid * 2 ** (levels - 1),
        "classes": len(state["out.2.c_proj.weight"]),
        **encoder(state, levels, blocks),
        "head_dim": 64,
        "attention_order": "legacy",
    }


def _classifier_table(model: dict) -> list[Row]:
    pool = Row(r"(out\.2\.(?:qkv_proj|c_proj)\.weight)", r"\1", to_linear, to_convolution)
    return table([pool])


LAYOUT = Layout(
    name="openai-adm-classifier",
    type="classifier",
    recognizes=_is_classifier,
    model=_classifier,
    table=_classifier_table,
    task=lambda model: {"type": "classifier", "schedule": "cosine" if model["size"] == 64 else "linear"},
)
