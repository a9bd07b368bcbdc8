"""ADM's U-Nets and upsamplers (github.com/openai/guided-diffusion)."""

from collections.abc import Callable

from ..layout import Layout, Row, State
from ..networks.adm_unet import assumed, condition_rows, unet_node, unet_table


def _recognizes(state: State) -> bool:
    return "output_blocks.0.0.in_layers.0.weight" in state and "token_embedding.weight" not in state


def _model(state: State) -> dict:
    conditions: dict[str, dict] = {}
    if "label_emb.weight" in state:
        conditions["label"] = {"type": "label-condition", "classes": len(state["label_emb.weight"])}
    if state["input_blocks.0.0.weight"].shape[1] == 6:
        conditions["low_res"] = {"type": "low-res-condition", "factor": 4, "resize": "bilinear"}
    model = unet_node(state, conditions)
    # Published models that differ from the others in what weights do not store.
    channels, mult = model["base_channels"], model["channel_mult"]
    if "low_res" in conditions:
        to_256_px = mult == [1, 1, 2, 2, 4, 4] and 8 in model["attention_factors"]
        model["heads"] = 4 if channels == 192 and to_256_px else None
    elif (channels, mult) == (192, [1, 2, 3, 4]):  # 64 px
        model["attention_order"] = "new"
    elif (channels, mult) == (256, [1, 1, 2, 3, 4]):  # 128 px
        model["heads"] = 4
    return model


def _task(model: dict) -> dict | None:
    """By the number of levels, which only published sizes have, and for upsamplers by the factors of attention."""
    if "low_res" in model["conditions"]:
        size = 256 if 8 in model["attention_factors"] else 512
    else:
        size = {4: 64, 5: 128, 6: 256, 7: 512}.get(len(model["channel_mult"]))
    if size is None:
        return None
    variance = {} if model["learned_variance"] else {"variance": "small"}
    return {"type": "decoder", "size": size, "schedule": "cosine" if size == 64 else "linear", **variance}


def _table(model: dict) -> list[Row]:
    rows: dict[str, Callable[[str], list[Row]]] = {
        "label-condition": lambda ours: [Row(rf"{ours}(label_emb\..+)", r"\1")],
        "low-res-condition": lambda ours: [],
    }
    return unet_table(condition_rows(model, rows))


LAYOUT = Layout(
    name="openai-adm",
    type="unet",
    recognizes=_recognizes,
    model=_model,
    table=_table,
    assumed=lambda model, state: assumed(model, 192, 256),
    task=_task,
)
