"""Karlo's diffusion prior (github.com/kakaobrain/karlo).

The statistics that whiten its embeddings are in a file of their own, `ViT-L-14_stats.th`, next to it.
"""

from ..layout import Layout, Row, State, count_layers
from ..networks.karlo import SUMS, prior_task, under

STATS = ("*_stats.th", ("clip_mean", "clip_std"))


def _prior(state: State) -> dict:
    state = under(state, "model.")
    width, states = state["text_enc_proj.weight"].shape
    return {
        "type": "diffusion-prior",
        "embed_dim": len(state["out_proj.weight"]),
        "context_length": state["positional_embedding"].shape[1] - 4,
        "text_width": states,
        "width": width,
        "depth": count_layers(state, r"transformer\.resblocks\.(\d+)\."),
        "heads": max(1, width // 64),
    }


def _prior_table(model: dict) -> list[Row]:
    return [Row(r"(mean|std)", r"clip_\1"), Row(r"(.+)", r"model.\1")]


LAYOUT = Layout(
    name="karlo-prior",
    type="diffusion-prior",
    recognizes=lambda state: "model.prd_emb" in state,
    model=_prior,
    table=_prior_table,
    task=prior_task,
    tokenizer="clip",
    side_file=STATS,
    wrapper="state_dict",
    checksums=SUMS,
)
