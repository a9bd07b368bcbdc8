"""DALL-E 1's discrete VAE (github.com/openai/DALL-E): the two published modules, prefixed `encoder.` and `decoder.`."""

import re

from ..layout import Layout, Row, State


def _recognizes(state: State) -> bool:
    return any(f"{half}.blocks.group_1.block_1.res_path.conv_1.w" in state for half in ("encoder", "decoder"))


def _model(state: State) -> dict:
    blocks = [match for key in state if (match := re.match(r"encoder\.blocks\.group_(\d+)\.block_(\d+)\.", key))]
    return {
        "type": "dvae",
        "vocab_size": len(state["encoder.blocks.output.conv.w"]),
        "n_hid": len(state["encoder.blocks.input.w"]),
        "n_init": len(state["decoder.blocks.input.w"]),
        "groups": len({match.group(1) for match in blocks}),
        "num_res_blocks": len({match.group(2) for match in blocks}),
    }


LAYOUT = Layout(
    name="openai-dvae",
    type="dvae",
    recognizes=_recognizes,
    model=_model,
    table=lambda model: [Row(r"(.+)", r"\1")],
    task=lambda model: {"type": "dvae"},
    files={"encoder.": "encoder.pkl", "decoder.": "decoder.pkl"},
)
