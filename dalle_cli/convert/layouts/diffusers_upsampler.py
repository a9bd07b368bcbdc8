"""The upsampler of unCLIP as diffusers keeps it: a UNet2DModel of the first steps and one of the last."""

from ..layout import ConvertError, FolderConfig, Layout, Row, State
from ..networks.diffusers_unet import PLAIN, WEIGHTS, check_unets, unet, unet_config, unet_rows
from ..networks.karlo import LOW_RES, under, upsampler_task

HALVES = {"first": "super_res_first.", "last": "super_res_last."}


def _is_upsampler(state: State) -> bool:
    ends = [
        (state.get(f"{half}conv_in.weight"), f"{half}down_blocks.0.downsamplers.0.conv1.weight")
        for half in HALVES.values()
    ]
    return any(first is not None and first.shape[1:2] == (6,) and key in state for first, key in ends)


def _upsampler(state: State) -> dict:
    return {"type": "two-stage-unet"} | {
        half: unet(under(state, name), {"low_res": LOW_RES}) for half, name in HALVES.items()
    }


def _upsampler_table(model: dict) -> list[Row]:
    rows = []
    for half, name in HALVES.items():
        others = {one["type"] for one in (model[half].get("conditions") or {}).values()} - {LOW_RES["type"]}
        if others:
            raise ConvertError(f"no place for a condition of type '{min(others)}' in this layout")
        rows += unet_rows(model[half], rf"{half}\.", name)
    return rows


def _upsampler_configs(model: dict) -> dict[str, dict]:
    return {
        name.removesuffix("."): {
            "_class_name": "UNet2DModel",
            **unet_config(model[half], 256, PLAIN, PLAIN),
            "in_channels": 6,
            "add_attention": model[half]["middle_attention"],
        }
        for half, name in HALVES.items()
    }


LAYOUT = Layout(
    name="diffusers-upsampler",
    type="two-stage-unet",
    recognizes=_is_upsampler,
    model=_upsampler,
    table=_upsampler_table,
    task=upsampler_task,
    files={name: name.removesuffix(".") for name in HALVES.values()},
    config=FolderConfig("config.json", WEIGHTS, check_unets, _upsampler_configs),
)
