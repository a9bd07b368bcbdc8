"""U-Nets as diffusers keeps them (classes UNet2DModel and UNet2DConditionModel): blocks in lists by their kind.

diffusers keeps the queries, keys and values of an attention apart; ours are joined head by head.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from ..layout import ConvertError, Row, State, count_layers

WEIGHTS = "diffusion_pytorch_model.safetensors"
PLAIN_BLOCK = "Resnet{0}{1}Block2D"
HEAD_DIM = 64  # of the published models
RESBLOCK = {
    **{"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2"},
    **{"out_layers.3": "conv2", "skip_connection": "conv_shortcut"},
}
ENDS = {
    **{"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"},
    **{"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"},
}
UNET_DEFAULTS = {
    **{"act_fn": "silu", "norm_num_groups": 32, "norm_eps": 1e-5, "flip_sin_to_cos": True, "freq_shift": 0},
    **{"center_input_sample": False, "time_embedding_type": "positional", "mid_block_scale_factor": 1},
}


def join_heads(heads: int | None, head_dim: int) -> Callable[..., Tensor]:
    """Return a function that joins queries, keys and values, or keys and values, head by head.

    heads: of each attention, None where `head_dim` gives them.
    """
    sizes = (heads, -1) if heads else (-1, head_dim)

    def join(*parts: Tensor) -> Tensor:
        return torch.stack([part.unflatten(0, sizes) for part in parts], dim=1).flatten(0, 2)

    return join


def split_heads(count: int, heads: int | None, head_dim: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return the inverse of `join_heads` for `count` parts."""

    def split(joined: Tensor) -> tuple[Tensor, ...]:
        dim = len(joined) // count // heads if heads else head_dim
        parts = joined.unflatten(0, (-1, count, dim)).unbind(1)
        return tuple(part.flatten(0, 1).contiguous() for part in parts)

    return split


def layer_rows(names: Mapping[str, str], ours: str, published: str) -> list[Row]:
    """Return rows of layers with a weight and a bias. ours: a pattern of the prefix of our keys."""
    layers = [(layer.replace(".", r"\."), name) for layer, name in names.items()]
    return [Row(rf"{ours}{layer}\.(weight|bias)", rf"{published}{name}.\1") for layer, name in layers]


def unet_node(state: State, conditions: dict[str, dict]) -> dict:
    """Return the recipe node of a U-Net, from its keys and shapes."""
    levels = count_layers(state, r"down_blocks\.(\d+)\.")
    widths = [len(state[f"down_blocks.{level}.resnets.0.conv1.weight"]) for level in range(levels)]
    channels = state["time_embedding.linear_1.weight"].shape[1]
    attention = [level for level in range(levels) if f"down_blocks.{level}.attentions.0.to_q.weight" in state]
    return {
        "type": "unet",
        "base_channels": channels,
        "channel_mult": [width / channels for width in widths],
        "num_res_blocks": count_layers(state, r"down_blocks\.0\.resnets\.(\d+)\."),
        "attention_factors": [2**level for level in attention],
        "conditions": conditions,
        "head_dim": HEAD_DIM,
        "heads": None,
        "attention_order": "legacy",
        "middle_attention": "mid_block.attentions.0.to_q.weight" in state,
        "scale_shift": len(state["down_blocks.0.resnets.0.time_emb_proj.weight"]) == 2 * widths[0],
        "resample": "resblock",
        "learned_variance": len(state["conv_out.weight"]) == 6,
    }


def unet_table(model: dict, ours: str, published: str) -> list[Row]:
    """Return the rows of a U-Net. ours: a pattern of the prefix of our keys; published: the prefix of theirs."""
    heads = model.get("heads"), model.get("head_dim", HEAD_DIM)
    rows = layer_rows(ENDS, ours, published)
    for block, name, is_attention in blocks(model):
        block, name = ours + block.replace(".", r"\.") + r"\.", f"{published}{name}."
        if not is_attention:
            rows += layer_rows(RESBLOCK, block, name)
            continue
        qkv = tuple(rf"{name}to_{part}.\1" for part in "qkv")
        context_kv = tuple(rf"{name}add_{part}_proj.\1" for part in "kv")
        rows += [
            Row(rf"{block}qkv\.(weight|bias)", qkv, join_heads(*heads), split_heads(3, *heads)),
            Row(rf"{block}encoder_kv\.(weight|bias)", context_kv, join_heads(*heads), split_heads(2, *heads)),
            *layer_rows({"norm": "group_norm", "proj_out": "to_out.0"}, block, name),
        ]
    return rows


def blocks(model: dict) -> Iterator[tuple[str, str, bool]]:
    """Yield our name of each block, theirs, and whether it is an attention."""
    levels, depth = len(model["channel_mult"]), model["num_res_blocks"]
    i = 0
    for level in range(levels):
        for block in range(depth):
            i += 1
            yield f"input_blocks.{i}.0", f"down_blocks.{level}.resnets.{block}", False
            if 2**level in model["attention_factors"]:
                yield f"input_blocks.{i}.1", f"down_blocks.{level}.attentions.{block}", True
        if level < levels - 1:
            i += 1
            yield f"input_blocks.{i}.0", f"down_blocks.{level}.downsamplers.0", False
    middle = int(model["middle_attention"])
    yield "middle_block.0", "mid_block.resnets.0", False
    if middle:
        yield "middle_block.1", "mid_block.attentions.0", True
    yield f"middle_block.{1 + middle}", "mid_block.resnets.1", False
    for up, level in enumerate(reversed(range(levels))):
        attention = int(2**level in model["attention_factors"])
        for block in range(depth + 1):
            ours = f"output_blocks.{up * (depth + 1) + block}"
            yield f"{ours}.0", f"up_blocks.{up}.resnets.{block}", False
            if attention:
                yield f"{ours}.1", f"up_blocks.{up}.attentions.{block}", True
            if level and block == depth:
                yield f"{ours}.{1 + attention}", f"up_blocks.{up}.upsamplers.0", False


def unet_config(model: dict, size: int, plain: str, attention: str) -> dict:
    """Return the configuration of a U-Net. plain, attention: names of blocks, with `{}` for the direction."""
    factors = model["attention_factors"]
    kinds = [attention if 2**level in factors else plain for level in range(len(model["channel_mult"]))]
    return {
        "sample_size": size,
        "layers_per_block": model["num_res_blocks"],
        "down_block_types": [kind.format("Down", "sample") for kind in kinds],
        "up_block_types": [kind.format("Up", "sample") for kind in reversed(kinds)],
        "block_out_channels": [round(multiple * model["base_channels"]) for multiple in model["channel_mult"]],
        "in_channels": 3,
        "out_channels": 6 if model["learned_variance"] else 3,
        "resnet_time_scale_shift": "scale_shift" if model["scale_shift"] else "default",
    }


def check_values(config: Mapping, supported: Mapping) -> None:
    """Raise ConvertError for a value of a configuration that our networks cannot have."""
    for key, value in supported.items():
        if config.get(key, value) != value:
            raise ConvertError(f"{key}: {config[key]} is not supported, only {value}")


def check_configs(model: dict, configs: dict[str, dict]) -> dict:
    """Return the model node. Raises ConvertError for configurations of U-Nets that ours cannot be."""
    for config in configs.values():
        check_values(config, UNET_DEFAULTS)
        for direction in ("down", "up"):
            for kind in config.get(f"{direction}_block_types") or ():
                if not kind.startswith(("Resnet", "SimpleCrossAttn")):
                    raise ConvertError(f"{direction}_block_types: {kind} is not supported")
    return model
