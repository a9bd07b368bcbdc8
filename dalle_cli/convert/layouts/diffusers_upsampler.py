"""The upsampler of unCLIP as diffusers keeps it: a UNet2DModel of the first steps and one of the last."""

from ..layout import ConvertError, FolderConfig, Layout, Row, State
from ..networks.diffusers_unet import PLAIN_BLOCK, WEIGHTS, check_configs, unet_config, unet_node, unet_table
from ..networks.karlo import LOW_RES, under, upsampler_task

HALVES = {"first": "super_res_first.", "last": "super_res_last."}


def _recognizes(state: State) -> bool:
    for prefix in HALVES.values():
        conv_in = state.get(f"{prefix}conv_in.weight")
        has_blocks = f"{prefix}down_blocks.0.downsamplers.0.conv1.weight" in state
        if conv_in is not None and conv_in.shape[1:2] == (6,) and has_blocks:
            return True
    return False


def _model(state: State) -> dict:
    halves = {half: unet_node(under(state, prefix), {"low_res": LOW_RES}) for half, prefix in HALVES.items()}
    return {"type": "two-stage-unet", **halves}


def _table(model: dict) -> list[Row]:
    rows = []
    for half, prefix in HALVES.items():
        types = {condition["type"] for condition in (model[half].get("conditions") or {}).values()}
        if others := types - {LOW_RES["type"]}:
            raise ConvertError(f"this layout cannot hold a condition of type '{min(others)}'")
        rows += unet_table(model[half], rf"{half}\.", prefix)
    return rows


def _write_configs(model: dict) -> dict[str, dict]:
    return {
        prefix.removesuffix("."): {
            "_class_name": "UNet2DModel",
            **unet_config(model[half], 256, PLAIN_BLOCK, PLAIN_BLOCK),
            "in_channels": 6,
            "add_attention": model[half]["middle_attention"],
        }
        for half, prefix in HALVES.items()
    }


LAYOUT = Layout(
    name="diffusers-upsampler",
    type="two-stage-unet",
    recognizes=_recognizes,
    model=_model,
    table=_table,
    task=upsampler_task,
    files={prefix: prefix.removesuffix(".") for prefix in HALVES.values()},
    config=FolderConfig("config.json", WEIGHTS, check_configs, _write_configs),
)
