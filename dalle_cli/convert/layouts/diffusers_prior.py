"""The diffusion prior of unCLIP as diffusers keeps it (class PriorTransformer)."""

from torch import Tensor

from ..layout import ConvertError, FolderConfig, Layout, Row, State, count_layers
from ..networks.diffusers_unet import HEAD, WEIGHTS, check, join, rows_of, split
from ..networks.karlo import prior_task

PRIOR = {
    **{"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"},
    **{"clip_img_proj": "proj_in", "text_emb_proj": "embedding_proj", "text_enc_proj": "encoder_hidden_states_proj"},
    **{"final_ln": "norm_out", "out_proj": "proj_to_clip_embeddings"},
}
IN_BLOCK = {"attn.c_proj": "attn1.to_out.0", "ln_1": "norm1", "ln_2": "norm3"} | {
    **{"mlp.c_fc": "ff.net.0.proj", "mlp.c_proj": "ff.net.2"},
}


def _prior(state: State) -> dict:
    width, states = state["encoder_hidden_states_proj.weight"].shape
    return {
        "type": "diffusion-prior",
        "embed_dim": len(state["proj_to_clip_embeddings.weight"]),
        "context_length": state["positional_embedding"].shape[1] - 4,
        "text_width": states,
        "width": width,
        "depth": count_layers(state, r"transformer_blocks\.(\d+)\."),
        "heads": max(1, width // HEAD),
    }


def _prior_table(model: dict) -> list[Row]:
    block, published = r"transformer\.resblocks\.(\d+)\.", r"transformer_blocks.\1."
    qkv = tuple(rf"{published}attn1.to_{part}.\2" for part in "qkv")
    inside = [
        Row(rf"{block}{layer.replace('.', '[.]')}\.(weight|bias)", rf"{published}{name}.\2")
        for layer, name in IN_BLOCK.items()
    ]
    return [
        Row(r"(mean|std)", r"clip_\1", _flat, _row),
        Row(r"positional_embedding", "positional_embedding"),
        Row(r"prd_emb", "prd_embedding"),
        Row(rf"{block}attn\.c_qkv\.(weight|bias)", qkv, join, split(3)),
        *inside,
        *rows_of(PRIOR, "", ""),
    ]


def _flat(x: Tensor) -> Tensor:
    return x[0]


def _row(x: Tensor) -> Tensor:
    return x[None]


def _prior_config(model: dict) -> dict:
    if model["text_width"] != model["embed_dim"]:
        raise ConvertError(f"no place for text states of another width, {model['text_width']}, than the embedding's")
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


def _prior_told(model: dict, config: dict) -> dict:
    plain = {"time_embed_act_fn": "silu", "encoder_hid_proj_type": "linear", "added_emb_type": "prd"}
    check(config, plain | dict.fromkeys(("norm_in_type", "embedding_proj_norm_type")))
    if config.get("attention_head_dim", HEAD) != HEAD:
        raise ConvertError(f"attention_head_dim: {config['attention_head_dim']}, where ours are {HEAD}")
    return model


LAYOUT = Layout(
    name="diffusers-prior",
    type="diffusion-prior",
    recognizes=lambda state: "prd_embedding" in state and "transformer_blocks.0.attn1.to_q.weight" in state,
    model=_prior,
    table=_prior_table,
    task=lambda model: prior_task(model) | {"clip_sample_range": 5.0},  # as its pipeline does
    tokenizer="clip",
    config=FolderConfig("config.json", WEIGHTS, _prior_told, _prior_config),
)
