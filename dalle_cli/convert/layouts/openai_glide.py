"""GLIDE (github.com/openai/glide-text2im): base, upsampler and their inpainting forms."""

from collections.abc import Callable

from ..layout import Layout, Row, State, count_layers
from ..networks.adm_unet import rows_by_type, table, unet

INPAINT = {"type": "inpaint-condition"}
LOW_RES = {"type": "low-res-condition", "factor": 4, "resize": "bilinear"}
BY_CHANNELS = {3: {}, 6: {"low_res": LOW_RES}, 7: {"inpaint": INPAINT}, 10: {"inpaint": INPAINT, "low_res": LOW_RES}}


def _is_unet(state: State) -> bool:
    return "output_blocks.0.0.in_layers.0.weight" in state and "token_embedding.weight" in state


def _unet(state: State) -> dict:
    vocab, width = state["token_embedding.weight"].shape
    text = {
        "type": "text-condition",
        "vocab_size": vocab,
        "context_length": len(state["positional_embedding"]),
        "width": width,
        "depth": count_layers(state, r"transformer\.resblocks\.(\d+)\."),
        "heads": max(1, width // 64),
    }
    n_in = state["input_blocks.0.0.weight"].shape[1]
    if n_in not in BY_CHANNELS:
        raise ValueError(f"no published network has {n_in} input channels")
    return unet(state, {"text": text, **BY_CHANNELS[n_in]})


def _task(model: dict) -> dict:
    small = {"size": 64, "schedule": "cosine"}
    large = {"size": 256, "schedule": "linear"}
    return {"type": "decoder", **(large if "low_res" in model["conditions"] else small)}


def _unet_table(model: dict) -> list[Row]:
    rows: dict[str, Callable[[str], list[Row]]] = {
        "text-condition": lambda ours: [Row(rf"{ours}(.+)", r"\1")],
        "inpaint-condition": lambda ours: [],
        "low-res-condition": lambda ours: [],
    }
    return table(rows_by_type(model, rows))


LAYOUT = Layout("openai-glide", "unet", _is_unet, _unet, _unet_table, task=_task, tokenizer="glide")
