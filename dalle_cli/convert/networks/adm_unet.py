"""U-Nets in the key layout of guided-diffusion (github.com/openai/guided-diffusion), which GLIDE and Karlo share."""

import re
from collections.abc import Callable

from torch import Tensor

from ..layout import ConvertError, Row, State, count_layers

BLOCKS = r"(?:input_blocks|middle_block|output_blocks)\..+"


def unet(state: State, conditions: dict[str, dict]) -> dict:
    """The recipe node of a U-Net as its keys and shapes tell it. Heads are taken to be 64 wide, their order legacy."""
    saved = count_layers(
        state, r"output_blocks\.(\d+)\.0\.in_layers\.0\.weight"
    )  # a level's blocks, and one for its way down
    ups = [key for key in state if re.fullmatch(r"output_blocks\.\d+\.[12]\.(?:in_layers\.0|conv)\.weight", key)]
    if state["input_blocks.0.0.weight"].shape[1] > 10 or len(state["out.2.weight"]) not in (3, 6):
        raise ValueError("no published network reads or draws squares of pixels as one place (model.patch_size)")
    levels = len(ups) + 1
    blocks = saved // levels - 1
    width = len(state["input_blocks.1.0.in_layers.2.weight"])
    return {
        "type": "unet",
        **encoder(state, levels, blocks),
        "conditions": conditions,
        "head_dim": 64,
        "heads": None,
        "attention_order": "legacy",
        "middle_attention": "middle_block.1.qkv.weight" in state,
        "scale_shift": len(state["input_blocks.1.0.emb_layers.1.weight"]) == 2 * width,
        "resample": "conv" if any(key.endswith(".conv.weight") for key in ups) else "resblock",
        "learned_variance": len(state["out.2.weight"]) == 6,
    }


def encoder(state: State, levels: int, blocks: int) -> dict:
    firsts = [1 + level * (blocks + 1) for level in range(levels)]
    channels = state["time_embed.0.weight"].shape[1]
    widths = [len(state[f"input_blocks.{first}.0.in_layers.2.weight"]) for first in firsts]
    return {
        "base_channels": channels,
        "channel_mult": [width / channels for width in widths],
        "num_res_blocks": blocks,
        "attention_factors": [2**level for level, i in enumerate(firsts) if f"input_blocks.{i}.1.qkv.weight" in state],
    }


def table(conditions: list[Row], ours: str = "", published: str = "") -> list[Row]:
    """The rows of a U-Net, of its conditions first; ours, published: what comes before each key of the network."""
    ours = re.escape(ours)
    return [
        *conditions,
        Row(rf"{ours}({BLOCKS}\.(?:qkv|encoder_kv|proj_out)\.weight)", rf"{published}\1", to_linear, to_convolution),
        Row(rf"{ours}((?:time_embed|out)\..+|{BLOCKS})", rf"{published}\1"),
    ]


def to_linear(x: Tensor) -> Tensor:
    """The weight of a 1x1 convolution over places as that of a linear layer."""
    return x.squeeze(-1)


def to_convolution(x: Tensor) -> Tensor:
    return x.unsqueeze(-1)


def rows_by_type(model: dict, rows: dict[str, Callable[[str], list[Row]]]) -> list[Row]:
    """The rows of a U-Net's conditions. rows: by type, from what comes before our keys, as a pattern, to the rows."""
    found = []
    for name, condition in (model.get("conditions") or {}).items():
        if condition["type"] not in rows:
            raise ConvertError(f"no place for a condition of type '{condition['type']}' in this layout")
        found += rows[condition["type"]](re.escape(f"conditions.{name}."))
    return found
