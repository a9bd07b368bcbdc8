"""Karlo's upsampler (github.com/kakaobrain/karlo): one U-Net for all steps but the last, and one for the last."""

from ..layout import ConvertError, Layout, Row, State
from ..networks.adm_unet import unet_node, unet_table
from ..networks.karlo import CHECKSUMS, LOW_RES, under, upsampler_task

HALVES = {"first": "model_first_steps.", "last": "model_last_step."}


def _model(state: State) -> dict:
    halves = {half: unet_node(under(state, prefix), {"low_res": LOW_RES}) for half, prefix in HALVES.items()}
    return {"type": "two-stage-unet", **halves}


def _table(model: dict) -> list[Row]:
    rows = []
    for half, prefix in HALVES.items():
        types = {condition["type"] for condition in (model[half].get("conditions") or {}).values()}
        if others := types - {LOW_RES["type"]}:
            raise ConvertError(f"this layout cannot hold a condition of type '{min(others)}'")
        rows += unet_table([], f"{half}.", prefix)
    return rows


LAYOUT = Layout(
    name="karlo-upsampler",
    type="two-stage-unet",
    recognizes=lambda state: "model_first_steps.out.2.weight" in state,
    model=_model,
    table=_table,
    task=upsampler_task,
    wrapper="state_dict",
    checksums=CHECKSUMS,
)
