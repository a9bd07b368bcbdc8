"""CLIP as open_clip keeps it (github.com/mlfoundations/open_clip) with its text tower as a module of its own."""

from ..layout import FolderConfig, Layout
from ..networks.openai_clip import FILES, assumed, has_clip_keys, key_table, model_node, read_config, write_config

PREFIX = "text."  # of the text tower's keys

LAYOUT = Layout(
    name="open-clip",
    type="clip",
    recognizes=has_clip_keys(PREFIX),
    model=lambda state: model_node({key.removeprefix(PREFIX): tensor for key, tensor in state.items()}),
    table=lambda model: key_table(model, PREFIX),
    assumed=assumed,
    task=lambda model: {"type": "clip"},
    tokenizer="clip",
    config=FolderConfig(**FILES, read=read_config, write=lambda model: write_config(model, custom_text=True)),
)
