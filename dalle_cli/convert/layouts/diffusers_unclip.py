"""unCLIP as diffusers keeps it (class UnCLIPPipeline): Karlo was published so, a folder for each module.

Our decoder is two modules there, the U-Net and the projections of what it is told; our upsampler is the U-Net of the
first steps and that of the last.
"""

from torch import Tensor

from ..layout import ConvertError, FolderConfig, Layout, Row, State, count_layers
from ..networks.diffusers_unet import HEAD, UNET_DEFAULTS, check, join, rows_of, split, unet, unet_config, unet_rows
from .karlo import LOW_RES, decoder_task, prior_task, under, upsampler_task

WEIGHTS = "diffusion_pytorch_model.safetensors"
PLAIN = "Resnet{0}{1}Block2D"
SEEING = "SimpleCrossAttn{0}Block2D"

# ---- the prior -------------------------------------------------------------------------------------------------------

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
        "context": state["positional_embedding"].shape[1] - 4,
        "states": states,
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
    if model["states"] != model["embed_dim"]:
        raise ConvertError(f"no place for text states of another width, {model['states']}, than the embedding's")
    return {
        "_class_name": "PriorTransformer",
        "num_attention_heads": model["heads"],
        "attention_head_dim": model["width"] // model["heads"],
        "num_layers": model["depth"],
        "embedding_dim": model["embed_dim"],
        "num_embeddings": model["context"],
        "additional_embeddings": 4,
        "dropout": 0.0,
    }


def _prior_told(model: dict, config: dict) -> dict:
    plain = {"time_embed_act_fn": "silu", "encoder_hid_proj_type": "linear", "added_emb_type": "prd"}
    check(config, plain | dict.fromkeys(("norm_in_type", "embedding_proj_norm_type")))
    if config.get("attention_head_dim", HEAD) != HEAD:
        raise ConvertError(f"attention_head_dim: {config['attention_head_dim']}, where ours are {HEAD}")
    return model


# ---- the decoder -----------------------------------------------------------------------------------------------------

TOLD = {
    "clip-condition": {"clip_emb": "clip_image_embeddings_project_to_time_embeddings"}
    | {"clip_tok_proj": "clip_extra_context_tokens_proj"},
    "clip-text-condition": {"text_feat_proj": "embedding_proj", "text_seq_proj.0": "encoder_hidden_states_proj"}
    | {"text_seq_proj.1": "text_encoder_hidden_states_norm"},
}
FREE = "learned_classifier_free_guidance_embeddings"


def _decoder(state: State) -> dict:
    told = under(state, "text_proj.")
    width, states = told["encoder_hidden_states_proj.weight"].shape
    tokens = len(told["clip_extra_context_tokens_proj.weight"]) // width
    image = {"type": "clip-condition", "embed_dim": len(told[FREE]), "tokens": tokens, "width": width}
    text = {"type": "clip-text-condition", "embed_dim": told["embedding_proj.weight"].shape[1], "states": states}
    return unet(under(state, "decoder."), {"clip": image, "text": text | {"width": width}})


def _decoder_table(model: dict) -> list[Row]:
    rows = []
    for name, condition in (model.get("conditions") or {}).items():
        if condition["type"] not in TOLD:
            raise ConvertError(f"no place for a condition of type '{condition['type']}' in this layout")
        ours = rf"conditions\.{name}\."
        rows += [Row(rf"{ours}cf_param", f"text_proj.{FREE}"), *rows_of(TOLD[condition["type"]], ours, "text_proj.")]
    return rows + unet_rows(model, "", "decoder.")


def _decoder_configs(model: dict) -> dict[str, dict]:
    conditions = {condition["type"]: condition for condition in model["conditions"].values()}
    image, text = conditions["clip-condition"], conditions["clip-text-condition"]
    if not image["embed_dim"] == text["embed_dim"] == text["states"]:
        raise ConvertError("no place for embeddings and text states of different widths")
    return {
        "decoder": {
            "_class_name": "UNet2DConditionModel",
            **unet_config(model, 64, PLAIN, SEEING),
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "cross_attention_dim": text["width"],
            "class_embed_type": "identity",
            "attention_head_dim": HEAD,
        },
        "text_proj": {
            "_class_name": "UnCLIPTextProjModel",
            "clip_extra_context_tokens": image["tokens"],
            "clip_embeddings_dim": image["embed_dim"],
            "time_embed_dim": 4 * model["channels"],
            "cross_attention_dim": text["width"],
        },
    }


# ---- the upsampler ---------------------------------------------------------------------------------------------------

HALVES = {"first": "super_res_first.", "last": "super_res_last."}


def _is_upsampler(state: State) -> bool:
    ends = [
        (state.get(f"{half}conv_in.weight"), f"{half}down_blocks.0.downsamplers.0.conv1.weight")
        for half in HALVES.values()
    ]
    return any(first is not None and first.shape[1:2] == (6,) and key in state for first, key in ends)


def _upsampler(state: State) -> dict:
    return {"type": "last-step"} | {
        half: unet(under(state, name), {"low_res": LOW_RES}) for half, name in HALVES.items()
    }


def _upsampler_table(model: dict) -> list[Row]:
    rows = []
    for half, name in HALVES.items():
        others = {one["type"] for one in (model[half].get("conditions") or {}).values()} - {LOW_RES["type"]}
        if others:
            raise ConvertError(f"no place for a condition of type '{min(others)}' in this layout")
        rows += unet_rows(model[half], rf"{half}\.", name)
    return rows


def _upsampler_configs(model: dict) -> dict[str, dict]:
    return {
        name.removesuffix("."): {
            "_class_name": "UNet2DModel",
            **unet_config(model[half], 256, PLAIN, PLAIN),
            "in_channels": 6,
            "add_attention": model[half]["middle_attention"],
        }
        for half, name in HALVES.items()
    }


# ---- what configurations say -----------------------------------------------------------------------------------------


def _unets_told(model: dict, configs: dict[str, dict]) -> dict:
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


def _decoder_told(model: dict, configs: dict[str, dict]) -> dict:
    return _unets_told(model, {"decoder": configs["decoder"]}) if "decoder" in configs else model


LAYOUTS = (
    Layout(
        name="diffusers-prior",
        type="diffusion-prior",
        recognizes=lambda state: "prd_embedding" in state and "transformer_blocks.0.attn1.to_q.weight" in state,
        model=_prior,
        table=_prior_table,
        task=lambda model: prior_task(model) | {"clamp": 5.0},  # as its pipeline does
        tokenizer="clip",
        config=FolderConfig("config.json", WEIGHTS, _prior_told, _prior_config),
    ),
    Layout(
        name="diffusers-decoder",
        type="unet",
        recognizes=lambda state: (
            "decoder.mid_block.attentions.0.add_k_proj.weight" in state or f"text_proj.{FREE}" in state
        ),
        model=_decoder,
        table=_decoder_table,
        task=decoder_task,
        tokenizer="clip",
        files={"decoder.": "decoder", "text_proj.": "text_proj"},
        config=FolderConfig("config.json", WEIGHTS, _decoder_told, _decoder_configs),
    ),
    Layout(
        name="diffusers-upsampler",
        type="last-step",
        recognizes=_is_upsampler,
        model=_upsampler,
        table=_upsampler_table,
        task=upsampler_task,
        files={name: name.removesuffix(".") for name in HALVES.values()},
        config=FolderConfig("config.json", WEIGHTS, _unets_told, _upsampler_configs),
    ),
)
