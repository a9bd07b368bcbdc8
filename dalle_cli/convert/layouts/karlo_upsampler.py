"""Karlo's upsampler (github.com/kakaobrain/karlo): one U-Net for all steps but the last, and one for the last."""

from ..layout import ConvertError, Layout, Row, State
from ..networks.adm_unet import table, unet
from ..networks.karlo import LOW_RES, SUMS, under, upsampler_task

NETWORKS = {"first": "model_first_steps.", "last": "model_last_step."}


def _upsampler(state: State) -> dict:
    networks = {ours: unet(under(state, name), {"low_res": LOW_RES}) for ours, name in NETWORKS.items()}
    return {"type": "two-stage-unet", **networks}


def _upsampler_table(model: dict) -> list[Row]:
    rows = []
    for ours, published in NETWORKS.items():
        others = {condition["type"] for condition in (model[ours].get("conditions") or {}).values()} - {LOW_RES["type"]}
        if others:
            raise ConvertError(f"no place for a condition of type '{min(others)}' in this layout")
        rows += table([], f"{ours}.", published)
    return rows


LAYOUT = Layout(
    name="karlo-upsampler",
    type="two-stage-unet",
    recognizes=lambda state: "model_first_steps.out.2.weight" in state,
    model=_upsampler,
    table=_upsampler_table,
    task=upsampler_task,
    wrapper="state_dict",
    checksums=SUMS,
)
