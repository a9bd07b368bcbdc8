"""Karlo, the public unCLIP (github.com/kakaobrain/karlo): prior, decoder and upsampler, one file each.

The statistics that whiten the prior's embeddings are in a file of their own, `ViT-L-14_stats.th`, beside it.
"""

from collections.abc import Callable

from ..layout import ConvertError, Layout, Row, State, count_layers
from ..networks.adm_unet import rows_by_type, table, unet

LOW_RES = {"type": "low-res-condition", "factor": 4, "resize": "bicubic"}


def under(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def _prior(state: State) -> dict:
    state = under(state, "model.")
    width, states = state["text_enc_proj.weight"].shape
    return {
        "type": "diffusion-prior",
        "embed_dim": len(state["out_proj.weight"]),
        "context": state["positional_embedding"].shape[1] - 4,
        "states": states,
        "width": width,
        "depth": count_layers(state, r"transformer\.resblocks\.(\d+)\."),
        "heads": max(1, width // 64),
    }


def _prior_table(model: dict) -> list[Row]:
    return [Row(r"(mean|std)", r"clip_\1"), Row(r"(.+)", r"model.\1")]


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
                "states": states,
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


NETWORKS = {"first": "model_first_steps.", "last": "model_last_step."}


def _upsampler(state: State) -> dict:
    networks = {ours: unet(under(state, name), {"low_res": LOW_RES}) for ours, name in NETWORKS.items()}
    return {"type": "last-step", **networks}


def _upsampler_table(model: dict) -> list[Row]:
    rows = []
    for ours, published in NETWORKS.items():
        others = {condition["type"] for condition in (model[ours].get("conditions") or {}).values()} - {LOW_RES["type"]}
        if others:
            raise ConvertError(f"no place for a condition of type '{min(others)}' in this layout")
        rows += table([], f"{ours}.", published)
    return rows


def prior_task(model: dict) -> dict:
    return {"type": "diffusion-prior", "schedule": "cosine", "drop_text": 0.2}


def decoder_task(model: dict) -> dict:
    return {"type": "decoder", "size": 64, "schedule": "cosine", "drop_text": 0.3, "drop_image": 0.1}


def upsampler_task(model: dict) -> dict:
    return {"type": "decoder", "size": 256, "schedule": "cosine", "variance": "small"}


STATS = ("*_stats.th", ("clip_mean", "clip_std"))
# the folders of the published links are called by these
SUMS = {
    "85626483eaca9f581e2a78d31ff905ca": "prior-ckpt-step=01000000-of-01000000.ckpt",
    "efdf6206d8ed593961593dc029a8affa": "decoder-ckpt-step=01000000-of-01000000.ckpt",
    "4226b831ae0279020d134281f3c31590": "improved-sr-ckpt-step=1.2M.ckpt",
}
LAYOUTS = (
    Layout(
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
    ),
    Layout(
        name="karlo-decoder",
        type="unet",
        recognizes=lambda state: "model.cf_param" in state,
        model=_decoder,
        table=_decoder_table,
        task=decoder_task,
        tokenizer="clip",
        wrapper="state_dict",
        checksums=SUMS,
    ),
    Layout(
        name="karlo-upsampler",
        type="last-step",
        recognizes=lambda state: "model_first_steps.out.2.weight" in state,
        model=_upsampler,
        table=_upsampler_table,
        task=upsampler_task,
        wrapper="state_dict",
        checksums=SUMS,
    ),
)
