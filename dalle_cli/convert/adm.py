"""ADM's U-Nets and classifiers (github.com/openai/guided-diffusion), and what all U-Nets of its kind have in common."""

import math
import re
from collections.abc import Callable

from torch import Tensor

from .keys import ConvertError, Row, Source, State, count

BLOCKS = r"(?:input_blocks|middle_block|output_blocks)\..+"


def unet(state: State, conditions: dict[str, dict]) -> dict:
    """The recipe node of a U-Net as its keys and shapes tell it. Heads are taken to be 64 wide, their order legacy."""
    saved = count(state, r"output_blocks\.(\d+)\.0\.in_layers\.0\.weight")  # a level's blocks, and one for its way down
    ups = [key for key in state if re.fullmatch(r"output_blocks\.\d+\.[12]\.(?:in_layers\.0|conv)\.weight", key)]
    if state["input_blocks.0.0.weight"].shape[1] > 10 or len(state["out.2.weight"]) not in (3, 6):
        raise ValueError("no published network reads or draws squares of pixels as one place (model.patch)")
    levels = len(ups) + 1
    blocks = saved // levels - 1
    width = len(state["input_blocks.1.0.in_layers.2.weight"])
    return {
        "type": "unet",
        **_encoder(state, levels, blocks),
        "conditions": conditions,
        "head_width": 64,
        "heads": None,
        "attention_order": "legacy",
        "middle_attention": "middle_block.1.qkv.weight" in state,
        "scale_shift": len(state["input_blocks.1.0.emb_layers.1.weight"]) == 2 * width,
        "resample": "conv" if any(key.endswith(".conv.weight") for key in ups) else "resblock",
        "learned_variance": len(state["out.2.weight"]) == 6,
    }


def _encoder(state: State, levels: int, blocks: int) -> dict:
    firsts = [1 + level * (blocks + 1) for level in range(levels)]
    channels = state["time_embed.0.weight"].shape[1]
    widths = [len(state[f"input_blocks.{first}.0.in_layers.2.weight"]) for first in firsts]
    return {
        "channels": channels,
        "multiples": [width / channels for width in widths],
        "blocks": blocks,
        "attention": [2**level for level, i in enumerate(firsts) if f"input_blocks.{i}.1.qkv.weight" in state],
    }


def table(conditions: list[Row], ours: str = "", published: str = "") -> list[Row]:
    """The rows of a U-Net, of its conditions first; ours, published: what comes before each key of the network."""
    ours = re.escape(ours)
    return [
        *conditions,
        Row(rf"{ours}({BLOCKS}\.(?:qkv|encoder_kv|proj_out)\.weight)", rf"{published}\1", to_linear, to_convolution),
        Row(rf"{ours}((?:time_embed|out)\..+|{BLOCKS})", rf"{published}\1"),
    ]


def to_linear(x: Tensor) -> Tensor:
    """The weight of a 1x1 convolution over places as that of a linear layer."""
    return x.squeeze(-1)


def to_convolution(x: Tensor) -> Tensor:
    return x.unsqueeze(-1)


def rows_by_type(model: dict, rows: dict[str, Callable[[str], list[Row]]]) -> list[Row]:
    """The rows of a U-Net's conditions. rows: by type, from what comes before our keys, as a pattern, to the rows."""
    found = []
    for name, condition in (model.get("conditions") or {}).items():
        if condition["type"] not in rows:
            raise ConvertError(f"no place for a condition of type '{condition['type']}' in this layout")
        found += rows[condition["type"]](re.escape(f"conditions.{name}."))
    return found


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
    size = model["channels"], model["multiples"], "low_res" in conditions
    if size == (192, [1, 2, 3, 4], False):  # 64 px
        model["attention_order"] = "new"
    elif size == (256, [1, 1, 2, 3, 4], False) or (size == (192, [1, 1, 2, 2, 4, 4], True) and 8 in model["attention"]):
        model["heads"] = 4  # 128 px, and 64 to 256 px
    return model


def _task(model: dict) -> dict | None:
    """By the number of levels, which only published sizes have, and for the upsamplers by where there is attention."""
    if "low_res" in model["conditions"]:
        size = 256 if 8 in model["attention"] else 512
    else:
        size = {4: 64, 5: 128, 6: 256, 7: 512}.get(len(model["multiples"]))
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


def _is_classifier(state: State) -> bool:
    return "out.2.qkv_proj.weight" in state and "input_blocks.0.0.weight" in state


def _classifier(state: State) -> dict:
    stages = count(state, r"input_blocks\.(\d+)\.0\.")
    seeing = ["1" if f"input_blocks.{i}.1.qkv.weight" in state else "0" for i in range(stages)]
    blocks = len(re.findall("1+", "".join(seeing))[0])  # there is attention after each block of a level, or after none
    levels = stages // (blocks + 1)
    grid = math.isqrt(state["out.2.positional_embedding"].shape[1] - 1)
    return {
        "type": "classifier",
        "size": grid * 2 ** (levels - 1),
        "classes": len(state["out.2.c_proj.weight"]),
        **_encoder(state, levels, blocks),
        "head_width": 64,
        "attention_order": "legacy",
    }


def _classifier_table(model: dict) -> list[Row]:
    pool = Row(r"(out\.2\.(?:qkv_proj|c_proj)\.weight)", r"\1", to_linear, to_convolution)
    return table([pool])


SOURCES = (
    Source("openai-adm", "unet", _is_unet, _unet, _unet_table, task=_task),
    Source(
        name="openai-adm-classifier",
        type="classifier",
        recognises=_is_classifier,
        model=_classifier,
        table=_classifier_table,
        task=lambda model: {"type": "classifier", "schedule": "cosine" if model["size"] == 64 else "linear"},
    ),
)
