"""GLIDE's noised CLIP (github.com/openai/glide-text2im), published in two files.

Both files are one model here: their keys are prefixed `image_encoder.` and `text_encoder.`.
"""

import math

from ..layout import Layout, Row, State, count_layers

TOWERS = (
    ("visual", "image_encoder.blocks.", r"image_projection"),
    ("text", "text_encoder.blocks.", r"text_projection"),
)
BLOCK_NORMS = {"ln_1": "f_attn.ln", "ln_2": "f_mlp.ln"}
BLOCK_LINEARS = {"q": "f_attn.f_q", "k": "f_attn.f_k", "v": "f_attn.f_v", "out": "f_attn.f_c"} | {
    **{"c_fc": "f_mlp.f_1", "c_proj": "f_mlp.f_2"},
}


def _recognizes(state: State) -> bool:
    return "image_encoder.blocks.input.w_t" in state or "text_encoder.blocks.input.w_voc" in state


def _model(state: State) -> dict:
    width, _, _, patch_size = state["image_encoder.blocks.input.patch_proj"].shape
    vocab_size, text_width = state["text_encoder.blocks.input.w_voc"].shape
    return {
        "type": "noised-clip",
        "embed_dim": len(state["image_encoder.blocks.output.f.w"]),
        "image": {
            "type": "noised-vit",
            "size": patch_size * math.isqrt(len(state["image_encoder.blocks.input.w_pos"]) - 1),
            "patch_size": patch_size,
            "width": width,
            "depth": count_layers(state, r"image_encoder\.blocks\.block_(\d+)\."),
            "heads": max(1, width // 64),
            "steps": len(state["image_encoder.blocks.input.w_t"]),
        },
        "text": {
            "type": "noised-clip-text",
            "vocab_size": vocab_size,
            "context_length": len(state["text_encoder.blocks.input.w_pos"]),
            "width": text_width,
            "depth": count_layers(state, r"text_encoder\.blocks\.block_(\d+)\."),
            "heads": max(1, text_width // 64),
        },
        "fixed_logit_scale": 100.0,
    }


def _assumed(model: dict, state: State) -> tuple[str, ...]:
    published = {"image": 768, "text": 512}
    return tuple(f"model.{tower}.heads" for tower, width in published.items() if model[tower]["width"] != width)


def _table(model: dict) -> list[Row]:
    rows = []
    for ours, published, projection in TOWERS:
        rows += [
            Row(rf"{ours}\.conv1\.weight", rf"{published}input.patch_proj"),
            Row(rf"{ours}\.time_embedding", rf"{published}input.w_t"),
            Row(rf"{ours}\.token_embedding\.weight", rf"{published}input.w_voc"),
            Row(rf"{ours}\.positional_embedding", rf"{published}input.w_pos"),
            Row(rf"{projection}\.weight", rf"{published}output.f.w"),
            *_norm(rf"{ours}\.ln_pre", rf"{published}input.ln"),
            *_norm(rf"{ours}\.ln_post", rf"{published}output.ln"),
        ]
        block, name = rf"{ours}\.blocks\.(\d+)\.", rf"{published}block_\1."
        for layer, layer_name in BLOCK_NORMS.items():
            rows += _norm(block + layer, name + layer_name)
        for layer, layer_name in BLOCK_LINEARS.items():
            rows += _linear(block + layer, name + layer_name)
    return rows


def _norm(ours: str, published: str) -> list[Row]:
    return [Row(rf"{ours}\.weight", f"{published}.g"), Row(rf"{ours}\.bias", f"{published}.b")]


def _linear(ours: str, published: str) -> list[Row]:
    return [Row(rf"{ours}\.weight", f"{published}.w"), Row(rf"{ours}\.bias", f"{published}.b")]


LAYOUT = Layout(
    name="openai-noised-clip",
    type="noised-clip",
    recognizes=_recognizes,
    model=_model,
    table=_table,
    assumed=_assumed,
    task=lambda model: {"type": "noised-clip"},
    tokenizer="clip",
    files={"image_encoder.": "clip_image_enc.pt", "text_encoder.": "clip_text_enc.pt"},
)
