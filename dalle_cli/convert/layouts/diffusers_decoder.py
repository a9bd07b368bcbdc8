"""The decoder of unCLIP as diffusers keeps it (class UNet2DConditionModel), with the projections of its conditions."""

from ..layout import ConvertError, FolderConfig, Layout, Row, State
from ..networks.diffusers_unet import HEAD, PLAIN, WEIGHTS, check_unets, rows_of, unet, unet_config, unet_rows
from ..networks.karlo import decoder_task, under

SEEING = "SimpleCrossAttn{0}Block2D"

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
    text = {"type": "clip-text-condition", "embed_dim": told["embedding_proj.weight"].shape[1], "text_width": states}
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
    if not image["embed_dim"] == text["embed_dim"] == text["text_width"]:
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
            "time_embed_dim": 4 * model["base_channels"],
            "cross_attention_dim": text["width"],
        },
    }


def _decoder_told(model: dict, configs: dict[str, dict]) -> dict:
    return check_unets(model, {"decoder": configs["decoder"]}) if "decoder" in configs else model


LAYOUT = Layout(
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
)
