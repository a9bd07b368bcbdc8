"""The decoder of unCLIP as diffusers keeps it (class UNet2DConditionModel), with the projections of its conditions."""

from ..layout import ConvertError, FolderConfig, Layout, Row, State
from ..networks.adm_unet import assumed
from ..networks.diffusers_unet import (
    PLAIN_BLOCK,
    WEIGHTS,
    check_configs,
    check_values,
    layer_rows,
    unet_config,
    unet_node,
    unet_table,
)
from ..networks.karlo import DECODER_CHANNELS, decoder_task, under

ATTENTION_BLOCK = "SimpleCrossAttn{0}Block2D"
CONDITIONS = {
    "clip-condition": {"clip_emb": "clip_image_embeddings_project_to_time_embeddings"}
    | {"clip_tok_proj": "clip_extra_context_tokens_proj"},
    "clip-text-condition": {"text_feat_proj": "embedding_proj", "text_seq_proj.0": "encoder_hidden_states_proj"}
    | {"text_seq_proj.1": "text_encoder_hidden_states_norm"},
}
NULL_EMBEDDING = "learned_classifier_free_guidance_embeddings"


def _model(state: State) -> dict:
    projections = under(state, "text_proj.")
    width, text_width = projections["encoder_hidden_states_proj.weight"].shape
    tokens = len(projections["clip_extra_context_tokens_proj.weight"]) // width
    embed_dim = projections["embedding_proj.weight"].shape[1]
    image = {"type": "clip-condition", "embed_dim": len(projections[NULL_EMBEDDING]), "tokens": tokens, "width": width}
    text = {"type": "clip-text-condition", "embed_dim": embed_dim, "text_width": text_width, "width": width}
    return unet_node(under(state, "decoder."), {"clip": image, "text": text})


def _table(model: dict) -> list[Row]:
    rows = []
    for name, condition in (model.get("conditions") or {}).items():
        if condition["type"] not in CONDITIONS:
            raise ConvertError(f"this layout cannot hold a condition of type '{condition['type']}'")
        ours = rf"conditions\.{name}\."
        rows.append(Row(rf"{ours}cf_param", f"text_proj.{NULL_EMBEDDING}"))
        rows += layer_rows(CONDITIONS[condition["type"]], ours, "text_proj.")
    return rows + unet_table(model, "", "decoder.")


def _write_configs(model: dict) -> dict[str, dict]:
    conditions = {condition["type"]: condition for condition in model["conditions"].values()}
    image, text = conditions["clip-condition"], conditions["clip-text-condition"]
    if not image["embed_dim"] == text["embed_dim"] == text["text_width"]:
        raise ConvertError("the layout cannot hold embeddings and text states of different widths")
    return {
        "decoder": {
            "_class_name": "UNet2DConditionModel",
            **unet_config(model, 64, PLAIN_BLOCK, ATTENTION_BLOCK),
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "cross_attention_dim": text["width"],
            "class_embed_type": "identity",
            "attention_head_dim": model["head_dim"],
        },
        "text_proj": {
            "_class_name": "UnCLIPTextProjModel",
            "clip_extra_context_tokens": image["tokens"],
            "clip_embeddings_dim": image["embed_dim"],
            "time_embed_dim": 4 * model["base_channels"],
            "cross_attention_dim": text["width"],
        },
    }


def _read_configs(model: dict, configs: dict[str, dict]) -> dict:
    if "decoder" not in configs:
        return model
    config = configs["decoder"]
    check_configs(model, {"decoder": config})
    check_values(config, {"class_embed_type": "identity", "cross_attention_norm": None})
    return model | {"head_dim": int(config.get("attention_head_dim", model["head_dim"]))}


LAYOUT = Layout(
    name="diffusers-decoder",
    type="unet",
    recognizes=lambda state: (
        "decoder.mid_block.attentions.0.add_k_proj.weight" in state or f"text_proj.{NULL_EMBEDDING}" in state
    ),
    model=_model,
    table=_table,
    assumed=lambda model, state: assumed(model, DECODER_CHANNELS),
    task=decoder_task,
    tokenizer="clip",
    files={"decoder.": "decoder", "text_proj.": "text_proj"},
    config=FolderConfig("config.json", WEIGHTS, _read_configs, _write_configs),
)
