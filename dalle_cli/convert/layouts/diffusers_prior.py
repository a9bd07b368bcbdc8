"""The diffusion prior of unCLIP as diffusers keeps it (class PriorTransformer)."""

from torch import Tensor

from ..layout import ConvertError, FolderConfig, Layout, Row, State, count_layers
from ..networks.diffusers_unet import HEAD_DIM, WEIGHTS, check_values, join_heads, layer_rows, split_heads
from ..networks.karlo import prior_assumed, prior_task

ENDS = {
    **{"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"},
    **{"clip_img_proj": "proj_in", "text_emb_proj": "embedding_proj", "text_enc_proj": "encoder_hidden_states_proj"},
    **{"final_ln": "norm_out", "out_proj": "proj_to_clip_embeddings"},
}
BLOCK = {"attn.c_proj": "attn1.to_out.0", "ln_1": "norm1", "ln_2": "norm3"} | {
    **{"mlp.c_fc": "ff.net.0.proj", "mlp.c_proj": "ff.net.2"},
}


def _model(state: State) -> dict:
    width, text_width = state["encoder_hidden_states_proj.weight"].shape
    return {
        "type": "diffusion-prior",
        "embed_dim": len(state["proj_to_clip_embeddings.weight"]),
        "context_length": state["positional_embedding"].shape[1] - 4,
        "text_width": text_width,
        "width": width,
        "depth": count_layers(state, r"transformer_blocks\.(\d+)\."),
        "heads": max(1, width // HEAD_DIM),
    }


def _table(model: dict) -> list[Row]:
    block, published = r"transformer\.resblocks\.(\d+)\.", r"transformer_blocks.\1."
    qkv = tuple(rf"{published}attn1.to_{part}.\2" for part in "qkv")
    heads = model["heads"], HEAD_DIM
    layers = [
        Row(rf"{block}{layer.replace('.', '[.]')}\.(weight|bias)", rf"{published}{name}.\2")
        for layer, name in BLOCK.items()
    ]
    return [
        Row(r"(mean|std)", r"clip_\1", _first_row, _as_row),
        Row(r"positional_embedding", "positional_embedding"),
        Row(r"prd_emb", "prd_embedding"),
        Row(rf"{block}attn\.c_qkv\.(weight|bias)", qkv, join_heads(*heads), split_heads(3, *heads)),
        *layers,
        *layer_rows(ENDS, "", ""),
    ]


def _first_row(x: Tensor) -> Tensor:
    return x[0]


def _as_row(x: Tensor) -> Tensor:
    return x[None]


def _write_config(model: dict) -> dict:
    if model["text_width"] != model["embed_dim"]:
        raise ConvertError(f"this layout cannot hold text states of another width, {model['text_width']}")
    return {
        "_class_name": "PriorTransformer",
        "num_attention_heads": model["heads"],
        "attention_head_dim": model["width"] // model["heads"],
        "num_layers": model["depth"],
        "embedding_dim": model["embed_dim"],
        "num_embeddings": model["context_length"],
        "additional_embeddings": 4,
        "dropout": 0.0,
    }


def _read_config(model: dict, config: dict) -> dict:
    supported = {"time_embed_act_fn": "silu", "encoder_hid_proj_type": "linear", "added_emb_type": "prd"}
    check_values(config, supported | dict.fromkeys(("norm_in_type", "embedding_proj_norm_type")))
    head_dim = config.get("attention_head_dim", HEAD_DIM)
    if not 0 < head_dim <= model["width"] or model["width"] % head_dim:
        raise ConvertError(f"attention_head_dim: {head_dim} does not divide the width {model['width']}")
    return model | {"heads": model["width"] // head_dim}


LAYOUT = Layout(
    name="diffusers-prior",
    type="diffusion-prior",
    recognizes=lambda state: "prd_embedding" in state and "transformer_blocks.0.attn1.to_q.weight" in state,
    model=_model,
    table=_table,
    assumed=prior_assumed,
    task=lambda model: prior_task(model) | {"clip_sample_range": 5.0},  # as its pipeline does
    tokenizer="clip",
    config=FolderConfig("config.json", WEIGHTS, _read_config, _write_config),
)
