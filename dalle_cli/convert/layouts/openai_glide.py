"""GLIDE (github.com/openai/glide-text2im): base, upsampler and their inpainting forms."""

from collections.abc import Callable

from ..layout import Layout, Row, State, count_layers
from ..networks.adm_unet import HEAD_DIM, assumed, condition_rows, unet_node, unet_table

INPAINT = {"type": "inpaint-condition"}
LOW_RES = {"type": "low-res-condition", "factor": 4, "resize": "bilinear"}
BY_CHANNELS = {3: {}, 6: {"low_res": LOW_RES}, 7: {"inpaint": INPAINT}, 10: {"inpaint": INPAINT, "low_res": LOW_RES}}


def _recognizes(state: State) -> bool:
    return "output_blocks.0.0.in_layers.0.weight" in state and "token_embedding.weight" in state


def _model(state: State) -> dict:
    vocab_size, width = state["token_embedding.weight"].shape
    text = {
        "type": "text-condition",
        "vocab_size": vocab_size,
        "context_length": len(state["positional_embedding"]),
        "width": width,
        "depth": count_layers(state, r"transformer\.resblocks\.(\d+)\."),
        "heads": max(1, width // HEAD_DIM),
    }
    channels = state["input_blocks.0.0.weight"].shape[1]
    if channels not in BY_CHANNELS:
        raise ValueError(f"no published network has {channels} input channels")
    return unet_node(state, {"text": text, **BY_CHANNELS[channels]})


def _assumed(model: dict, state: State) -> tuple[str, ...]:
    text = () if model["conditions"]["text"]["width"] == 512 else ("model.conditions.text.heads",)
    return (*assumed(model, 192), *text)


def _task(model: dict) -> dict:
    sampling = {"size": 256, "schedule": "linear"} if "low_res" in model["conditions"] else {}
    return {"type": "decoder", "size": 64, "schedule": "cosine", **sampling}


def _table(model: dict) -> list[Row]:
    rows: dict[str, Callable[[str], list[Row]]] = {
        "text-condition": lambda ours: [Row(rf"{ours}(.+)", r"\1")],
        "inpaint-condition": lambda ours: [],
        "low-res-condition": lambda ours: [],
    }
    return unet_table(condition_rows(model, rows))


LAYOUT = Layout(
    name="openai-glide",
    type="unet",
    recognizes=_recognizes,
    model=_model,
    table=_table,
    assumed=_assumed,
    task=_task,
    tokenizer="glide",
)
