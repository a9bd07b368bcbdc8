"""U-Nets as diffusers keeps them (classes UNet2DModel and UNet2DConditionModel): blocks in lists by their kind.

What its attention has apart, q, k and v, lies together for each head in ours.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from ..layout import ConvertError, Row, State, count_layers

WEIGHTS = "diffusion_pytorch_model.safetensors"
PLAIN = "Resnet{0}{1}Block2D"
HEAD = 64  # width of every attention head in the published models
RESBLOCK = {
    **{"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2"},
    **{"out_layers.3": "conv2", "skip_connection": "conv_shortcut"},
}
ENDS = {
    **{"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"},
    **{"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"},
}


def join(*parts: Tensor) -> Tensor:
    """q, k and v, or k and v, apart, to rows in which those of each head lie together."""
    return torch.stack([part.unflatten(0, (-1, HEAD)) for part in parts], dim=1).flatten(0, 2)


def split(count: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    def split(whole: Tensor) -> tuple[Tensor, ...]:
        heads = whole.unflatten(0, (-1, count, HEAD))
        return tuple(part.flatten(0, 1).contiguous() for part in heads.unbind(1))

    return split


def rows_of(names: Mapping[str, str], ours: str, published: str) -> list[Row]:
    """Rows of layers with a weight and a bias. ours: what comes before, a pattern."""
    layers = [(layer.replace(".", r"\."), name) for layer, name in names.items()]
    return [Row(rf"{ours}{layer}\.(weight|bias)", rf"{published}{name}.\1") for layer, name in layers]


def unet(state: State, conditions: dict[str, dict]) -> dict:
    """The recipe node of a U-Net as its keys and shapes tell it."""
    levels, blocks = (
        count_layers(state, r"down_blocks\.(\d+)\."),
        count_layers(state, r"down_blocks\.0\.resnets\.(\d+)\."),
    )
    widths = [len(state[f"down_blocks.{level}.resnets.0.conv1.weight"]) for level in range(levels)]
    channels = state["time_embedding.linear_1.weight"].shape[1]
    seeing = [f"down_blocks.{level}.attentions.0.to_q.weight" in state for level in range(levels)]
    return {
        "type": "unet",
        "base_channels": channels,
        "channel_mult": [width / channels for width in widths],
        "num_res_blocks": blocks,
        "attention_factors": [2**level for level, sees in enumerate(seeing) if sees],
        "conditions": conditions,
        "head_dim": HEAD,
        "heads": None,
        "attention_order": "legacy",
        "middle_attention": "mid_block.attentions.0.to_q.weight" in state,
        "scale_shift": len(state["down_blocks.0.resnets.0.time_emb_proj.weight"]) == 2 * widths[0],
        "resample": "resblock",
        "learned_variance": len(state["conv_out.weight"]) == 6,
    }


def unet_rows(model: dict, ours: str, published: str) -> list[Row]:
    """ours: what comes before our keys, a pattern; published: before theirs."""
    rows = rows_of(ENDS, ours, published)
    for stage, name, seeing in stages(model):
        stage, name = ours + stage.replace(".", r"\.") + r"\.", f"{published}{name}."
        if not seeing:
            rows += rows_of(RESBLOCK, stage, name)
            continue
        qkv = tuple(rf"{name}to_{part}.\1" for part in "qkv")
        told = tuple(rf"{name}add_{part}_proj.\1" for part in "kv")
        rows += [
            Row(rf"{stage}qkv\.(weight|bias)", qkv, join, split(3)),
            Row(rf"{stage}encoder_kv\.(weight|bias)", told, join, split(2)),
            *rows_of({"norm": "group_norm", "proj_out": "to_out.0"}, stage, name),
        ]
    return rows


def stages(model: dict) -> Iterator[tuple[str, str, bool]]:
    """Our name of each block, theirs, and whether it is one of attention."""
    levels, blocks = len(model["channel_mult"]), model["num_res_blocks"]
    i = 0
    for level in range(levels):
        for block in range(blocks):
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
        seeing = int(2**level in model["attention_factors"])
        for block in range(blocks + 1):
            stage = f"output_blocks.{up * (blocks + 1) + block}"
            yield f"{stage}.0", f"up_blocks.{up}.resnets.{block}", False
            if seeing:
                yield f"{stage}.1", f"up_blocks.{up}.attentions.{block}", True
            if level and block == blocks:
                yield f"{stage}.{1 + seeing}", f"up_blocks.{up}.upsamplers.0", False


def unet_config(model: dict, size: int, plain: str, seeing: str) -> dict:
    """plain, seeing: what blocks without and with attention are called, `{}` for the direction."""
    kinds = [seeing if 2**level in model["attention_factors"] else plain for level in range(len(model["channel_mult"]))]
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


UNET_DEFAULTS = {
    **{"act_fn": "silu", "norm_num_groups": 32, "norm_eps": 1e-5, "flip_sin_to_cos": True, "freq_shift": 0},
    **{"center_input_sample": False, "time_embedding_type": "positional", "mid_block_scale_factor": 1},
}


def check(config: Mapping, known: Mapping) -> None:
    """Raises ConvertError for a value of a configuration that our networks cannot have."""
    for key, value in known.items():
        if config.get(key, value) != value:
            raise ConvertError(f"{key}: {config[key]}, where our network has {value}")


def check_unets(model: dict, configs: dict[str, dict]) -> dict:
    for config in configs.values():
        check(config, UNET_DEFAULTS)
        for direction in ("down", "up"):
            for kind in config.get(f"{direction}_block_types") or ():
                if not kind.startswith(("Resnet", "SimpleCrossAttn")):
                    raise ConvertError(f"{direction}_block_types: a {kind} is nothing that our network has")
    if "decoder" in configs:
        check(
            configs["decoder"],
            {"attention_head_dim": HEAD, "class_embed_type": "identity", "cross_attention_norm": None},
        )
    return model
