"""ADM's U-Nets and upsamplers (github.com/openai/guided-diffusion)."""

from collections.abc import Callable

from ..layout import Layout, Row, State
from ..networks.adm_unet import rows_by_type, table, unet


def _is_unet(state: State) -> bool:
    return "output_blocks.0.0.in_layers.0.weight" in state and "token_embedding.weight" not in state


def _unet(state: State) -> dict:
    conditions: dict[str, dict] = {}
    if "label_emb.weight" in state:
        conditions["label"] = {"type": "label-condition", "classes": len(state["label_emb.weight"])}
    if state["input_blocks.0.0.weight"].shape[1] == 6:
        conditions["low_res"] = {"type": "low-res-condition", "factor": 4, "resize": "bilinear"}
    model = unet(state, conditions)
    # what the weights do not tell of the published models that are not like the others
    size = model["base_channels"], model["channel_mult"], "low_res" in conditions
    if size == (192, [1, 2, 3, 4], False):  # 64 px
        model["attention_order"] = "new"
    elif size == (256, [1, 1, 2, 3, 4], False) or (
        size == (192, [1, 1, 2, 2, 4, 4], True) and 8 in model["attention_factors"]
    ):
        model["heads"] = 4  # 128 px, and 64 to 256 px
    return model


def _task(model: dict) -> dict | None:
    """By the number of levels, which only published sizes have, and for the upsamplers by where there is attention."""
    if "low_res" in model["conditions"]:
        size = 256 if 8 in model["attention_factors"] else 512
    else:
        size = {4: 64, 5: 128, 6: 256, 7: 512}.get(len(model["channel_mult"]))
    if size is None:
        return None
    kind = {} if model["learned_variance"] else {"variance": "small"}
    return {"type": "decoder", "size": size, "schedule": "cosine" if size == 64 else "linear", **kind}


def _unet_table(model: dict) -> list[Row]:
    rows: dict[str, Callable[[str], list[Row]]] = {
        "label-condition": lambda ours: [Row(rf"{ours}(label_emb\..+)", r"\1")],
        "low-res-condition": lambda ours: [],
    }
    return table(rows_by_type(model, rows))


LAYOUT = Layout("openai-adm", "unet", _is_unet, _unet, _unet_table, task=_task)
