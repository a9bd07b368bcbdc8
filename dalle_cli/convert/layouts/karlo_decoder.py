"""Karlo's decoder (github.com/kakaobrain/karlo): a U-Net conditioned on a CLIP embedding and a text."""

from collections.abc import Callable

from ..layout import Layout, Row, State
from ..networks.adm_unet import rows_by_type, table, unet
from ..networks.karlo import SUMS, decoder_task, under


def _decoder(state: State) -> dict:
    state = under(state, "model.")
    width, states = state["text_seq_proj.0.weight"].shape
    embed_dim = state["clip_emb.weight"].shape[1]
    tokens = len(state["clip_tok_proj.weight"]) // width
    return unet(
        state,
        {
            "clip": {"type": "clip-condition", "embed_dim": embed_dim, "tokens": tokens, "width": width},
            "text": {
                "type": "clip-text-condition",
                "embed_dim": state["text_feat_proj.weight"].shape[1],
                "text_width": states,
                "width": width,
            },
        },
    )


def _decoder_table(model: dict) -> list[Row]:
    rows: dict[str, Callable[[str], list[Row]]] = {
        "clip-condition": lambda ours: [Row(rf"{ours}(.+)", r"model.\1")],
        "clip-text-condition": lambda ours: [Row(rf"{ours}(.+)", r"model.\1")],
    }
    return table(rows_by_type(model, rows), published="model.")


LAYOUT = Layout(
    name="karlo-decoder",
    type="unet",
    recognizes=lambda state: "model.cf_param" in state,
    model=_decoder,
    table=_decoder_table,
    task=decoder_task,
    tokenizer="clip",
    wrapper="state_dict",
    checksums=SUMS,
)
