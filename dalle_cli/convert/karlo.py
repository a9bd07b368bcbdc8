"""Karlo, the public unCLIP (github.com/kakaobrain/karlo): prior, decoder and upsampler, one file each.

The prior's file has not the statistics that whiten: put them beside its weights, as `clip_mean` and `clip_std`.
"""

from collections.abc import Callable

from .adm import rows_by_type, table, unet
from .keys import ConvertError, Row, Source, State, count

LOW_RES = {"type": "low-res-condition", "factor": 4, "resize": "bicubic"}


def _under(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def _prior(state: State) -> dict:
    state = _under(state, "model.")
    width, states = state["text_enc_proj.weight"].shape
    return {
        "type": "diffusion-prior",
        "embed_dim": len(state["out_proj.weight"]),
        "context": state["positional_embedding"].shape[1] - 4,
        "states": states,
        "width": width,
        "depth": count(state, r"transformer\.resblocks\.(\d+)\."),
        "heads": max(1, width // 64),
    }


def _prior_table(model: dict) -> list[Row]:
    return [Row(r"(mean|std)", r"clip_\1"), Row(r"(.+)", r"model.\1")]


def _decoder(state: State) -> dict:
    state = _under(state, "model.")
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
    networks = {ours: unet(_under(state, name), {"low_res": LOW_RES}) for ours, name in NETWORKS.items()}
    return {"type": "last-step", **networks}


def _upsampler_table(model: dict) -> list[Row]:
    rows = []
    for ours, published in NETWORKS.items():
        others = {condition["type"] for condition in (model[ours].get("conditions") or {}).values()} - {LOW_RES["type"]}
        if others:
            raise ConvertError(f"no place for a condition of type '{min(others)}' in this layout")
        rows += table([], f"{ours}.", published)
    return rows


SOURCES = (
    Source(
        "karlo-prior",
        "diffusion-prior",
        lambda state: "model.prd_emb" in state,
        _prior,
        _prior_table,
        task=lambda model: {"type": "diffusion-prior", "drop_text": 0.2},
    ),
    Source("karlo-decoder", "unet", lambda state: "model.cf_param" in state, _decoder, _decoder_table),
    Source(
        "karlo-upsampler",
        "last-step",
        lambda state: "model_first_steps.out.2.weight" in state,
        _upsampler,
        _upsampler_table,
    ),
)
