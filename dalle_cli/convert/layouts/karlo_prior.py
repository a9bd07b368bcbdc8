"""Karlo's diffusion prior (github.com/kakaobrain/karlo).

The statistics that whiten its embeddings are in a file of their own, `ViT-L-14_stats.th`, next to it.
"""

from ..layout import Layout, Row, State, count_layers
from ..networks.karlo import CHECKSUMS, prior_assumed, prior_task, under


def _model(state: State) -> dict:
    state = under(state, "model.")
    width, text_width = state["text_enc_proj.weight"].shape
    return {
        "type": "diffusion-prior",
        "embed_dim": len(state["out_proj.weight"]),
        "context_length": state["positional_embedding"].shape[1] - 4,
        "text_width": text_width,
        "width": width,
        "depth": count_layers(state, r"transformer\.resblocks\.(\d+)\."),
        "heads": max(1, width // 64),
    }


LAYOUT = Layout(
    name="karlo-prior",
    type="diffusion-prior",
    recognizes=lambda state: "model.prd_emb" in state,
    model=_model,
    table=lambda model: [Row(r"(mean|std)", r"clip_\1"), Row(r"(.+)", r"model.\1")],
    assumed=prior_assumed,
    task=prior_task,
    tokenizer="clip",
    side_file=("*_stats.th", ("clip_mean", "clip_std")),
    wrapper="state_dict",
    checksums=CHECKSUMS,
)
