"""Karlo's decoder (github.com/kakaobrain/karlo): a U-Net conditioned on a CLIP embedding and a text."""

from collections.abc import Callable

from ..layout import Layout, Row, State
from ..networks.adm_unet import assumed, condition_rows, unet_node, unet_table
from ..networks.karlo import CHECKSUMS, DECODER_CHANNELS, decoder_task, under


def _model(state: State) -> dict:
    state = under(state, "model.")
    width, text_width = state["text_seq_proj.0.weight"].shape
    embed_dim = state["clip_emb.weight"].shape[1]
    tokens = len(state["clip_tok_proj.weight"]) // width
    image = {"type": "clip-condition", "embed_dim": embed_dim, "tokens": tokens, "width": width}
    text_embed_dim = state["text_feat_proj.weight"].shape[1]
    text = {"type": "clip-text-condition", "embed_dim": text_embed_dim, "text_width": text_width, "width": width}
    return unet_node(state, {"clip": image, "text": text})


def _table(model: dict) -> list[Row]:
    rows: dict[str, Callable[[str], list[Row]]] = {
        "clip-condition": lambda ours: [Row(rf"{ours}(.+)", r"model.\1")],
        "clip-text-condition": lambda ours: [Row(rf"{ours}(.+)", r"model.\1")],
    }
    return unet_table(condition_rows(model, rows), published="model.")


LAYOUT = Layout(
    name="karlo-decoder",
    type="unet",
    recognizes=lambda state: "model.cf_param" in state,
    model=_model,
    table=_table,
    assumed=lambda model, state: assumed(model, DECODER_CHANNELS),
    task=decoder_task,
    tokenizer="clip",
    wrapper="state_dict",
    checksums=CHECKSUMS,
)
