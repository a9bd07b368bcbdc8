"""CLIP as Hugging Face's transformers keeps it (class CLIPModel), whole or one tower."""

from ..layout import FolderConfig, Layout
from ..networks.hf_clip import POSITIONS, has_clip_keys, key_table, model_node, read_config, write_config
from ..networks.openai_clip import assumed

LAYOUT = Layout(
    name="hf-clip",
    type="clip",
    recognizes=has_clip_keys,
    model=model_node,
    table=key_table,
    assumed=assumed,
    ignored_keys=POSITIONS,
    task=lambda model: {"type": "clip"},
    tokenizer="clip",
    config=FolderConfig("config.json", "model.safetensors", read_config, write_config),
)
