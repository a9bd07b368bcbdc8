"""U-Nets in the key layout of guided-diffusion (github.com/openai/guided-diffusion), which GLIDE and Karlo share."""

import re
from collections.abc import Callable

from torch import Tensor

from ..layout import ConvertError, Row, State, count_layers

BLOCKS = r"(?:input_blocks|middle_block|output_blocks)\..+"
HEAD_DIM = 64  # of the published models; the weights do not store it


def unet_node(state: State, conditions: dict[str, dict]) -> dict:
    """Return the recipe node of a U-Net, from its keys and shapes; heads have 64 channels, in the legacy order."""
    outputs = count_layers(state, r"output_blocks\.(\d+)\.0\.in_layers\.0\.weight")  # of a level: blocks + 1
    ups = [key for key in state if re.fullmatch(r"output_blocks\.\d+\.[12]\.(?:in_layers\.0|conv)\.weight", key)]
    if state["input_blocks.0.0.weight"].shape[1] > 10 or len(state["out.2.weight"]) not in (3, 6):
        raise ValueError("no published network works on patches of pixels (model.patch_size)")
    levels = len(ups) + 1
    width = len(state["input_blocks.1.0.in_layers.2.weight"])
    return {
        "type": "unet",
        **encoder_sizes(state, levels, outputs // levels - 1),
        "conditions": conditions,
        "head_dim": HEAD_DIM,
        "heads": None,
        "attention_order": "legacy",
        "middle_attention": "middle_block.1.qkv.weight" in state,
        "scale_shift": len(state["input_blocks.1.0.emb_layers.1.weight"]) == 2 * width,
        "resample": "conv" if any(key.endswith(".conv.weight") for key in ups) else "resblock",
        "learned_variance": len(state["out.2.weight"]) == 6,
    }


def encoder_sizes(state: State, levels: int, blocks: int) -> dict:
    """Return the channels, blocks and attention of the levels of an encoder. blocks: of each level."""
    firsts = [1 + level * (blocks + 1) for level in range(levels)]
    channels = state["time_embed.0.weight"].shape[1]
    widths = [len(state[f"input_blocks.{first}.0.in_layers.2.weight"]) for first in firsts]
    return {
        "base_channels": channels,
        "channel_mult": [width / channels for width in widths],
        "num_res_blocks": blocks,
        "attention_factors": [2**level for level, i in enumerate(firsts) if f"input_blocks.{i}.1.qkv.weight" in state],
    }


def assumed(model: dict, *published: int) -> tuple[str, ...]:
    """Return the recipe keys that weights do not store. published: base channels of models whose values are known."""
    attention = model["attention_factors"] or model.get("middle_attention")
    if not attention or model["base_channels"] in published:
        return ()
    width = () if model.get("heads") else ("model.head_dim",)  # a number of heads gives their width
    return (*width, "model.attention_order")


def unet_table(conditions: list[Row], ours: str = "", published: str = "") -> list[Row]:
    """Return the rows of a U-Net, those of its conditions first. ours, published: prefixes of the network's keys."""
    ours = re.escape(ours)
    return [
        *conditions,
        Row(rf"{ours}({BLOCKS}\.(?:qkv|encoder_kv|proj_out)\.weight)", rf"{published}\1", to_linear, to_convolution),
        Row(rf"{ours}((?:time_embed|out)\..+|{BLOCKS})", rf"{published}\1"),
    ]


def to_linear(weight: Tensor) -> Tensor:
    """Convert the weight of a 1x1 convolution over positions, (O, I, 1), to that of a linear layer, (O, I)."""
    return weight.squeeze(-1)


def to_convolution(weight: Tensor) -> Tensor:
    """Convert the weight of a linear layer, (O, I), to that of a 1x1 convolution over positions, (O, I, 1)."""
    return weight.unsqueeze(-1)


def condition_rows(model: dict, by_type: dict[str, Callable[[str], list[Row]]]) -> list[Row]:
    """Return the rows of a U-Net's conditions. by_type: from a pattern of the prefix of our keys to the rows."""
    rows = []
    for name, condition in (model.get("conditions") or {}).items():
        if condition["type"] not in by_type:
            raise ConvertError(f"this layout cannot hold a condition of type '{condition['type']}'")
        rows += by_type[condition["type"]](re.escape(f"conditions.{name}."))
    return rows
