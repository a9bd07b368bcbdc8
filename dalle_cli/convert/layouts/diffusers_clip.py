"""CLIP as diffusers' pipelines keep it: text and image encoder of transformers in folders of their own."""

from torch import Tensor

from ..layout import FolderConfig, Layout, Row, State
from ..networks.hf_clip import POSITIONS, key_table, model_node, read_config, text_config, vision_config
from ..networks.openai_clip import assumed

# The modules of a pipeline (karlo-v1-alpha-image-variations), a folder each.
MODULES = {"text_encoder.": "text_encoder", "image_encoder.": "image_encoder"}


def _joined(state: State) -> dict[str, Tensor]:
    """The state of the modules as that of one model."""
    return {key.partition(".")[2]: tensor for key, tensor in state.items()}


def _table(model: dict) -> list[Row]:
    rows = []
    for row in key_table(model):
        if row.published == "logit_scale":  # neither module has it
            continue
        name = row.published if isinstance(row.published, str) else row.published[0]
        module = "text_encoder." if name.startswith("text_") else "image_encoder."
        whole = isinstance(row.published, str)
        rows.append(row._replace(published=module + name if whole else tuple(module + part for part in row.published)))
    return rows


def _read_configs(model: dict, configs: dict[str, dict]) -> dict:
    towers = {"text": "text_encoder", "image": "image_encoder"}
    nodes = {
        tower: read_config({tower: model[tower]}, configs[name]) for tower, name in towers.items() if name in configs
    }
    return model | {tower: node[tower] for tower, node in nodes.items()}


def _write_configs(model: dict) -> dict[str, dict]:
    return {"text_encoder": text_config(model), "image_encoder": vision_config(model)}


LAYOUT = Layout(
    name="diffusers-clip",
    type="clip",
    recognizes=lambda state: any(
        f"{name}_encoder.{tower}_model.embeddings.position_embedding.weight" in state
        for name, tower in (("text", "text"), ("image", "vision"))
    ),
    model=lambda state: model_node(_joined(state)),
    table=_table,
    assumed=assumed,
    ignored_keys=frozenset(f"{module}{key}" for module in MODULES for key in POSITIONS),
    task=lambda model: {"type": "clip"},
    tokenizer="clip",
    files=MODULES,
    config=FolderConfig("config.json", "model.safetensors", _read_configs, _write_configs),
)
