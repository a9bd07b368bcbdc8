"""Small models of every kind that a layout holds, and what the tests of layouts share."""

import torch

from dalle_cli.convert.recognition import export_state, import_state
from dalle_cli.models import models

UNET = {
    **{
        "type": "unet",
        "base_channels": 64,
        "channel_mult": [1, 2],
        "num_res_blocks": 1,
        "attention_factors": [2],
        "head_dim": 64,
    },
    **{"heads": None, "attention_order": "legacy", "middle_attention": True, "scale_shift": True},
    **{"resample": "resblock", "learned_variance": True},
}
DECODER = UNET | {
    "conditions": {
        "clip": {"type": "clip-condition", "embed_dim": 24, "tokens": 4, "width": 16},
        "text": {"type": "clip-text-condition", "embed_dim": 24, "text_width": 24, "width": 16},
    }
}
PRIOR = {
    **{
        "type": "diffusion-prior",
        "embed_dim": 24,
        "context_length": 7,
        "text_width": 24,
        "width": 128,
        "depth": 2,
        "heads": 2,
    },
}
HALF = UNET | {
    **{"attention_factors": [], "middle_attention": False, "scale_shift": False, "learned_variance": False},
    "conditions": {"low_res": {"type": "low-res-condition", "factor": 4, "resize": "bicubic"}},
}
UPSAMPLER = {"type": "two-stage-unet", "first": HALF, "last": HALF}
# Karlo's sizes
LARGE = {"base_channels": 320, "num_res_blocks": 3, "channel_mult": [1, 2, 3, 4]}
LARGE_PRIOR = PRIOR | {
    "embed_dim": 768,
    "context_length": 77,
    "text_width": 768,
    "width": 2048,
    "depth": 20,
    "heads": 32,
}
LARGE_DECODER = (
    UNET
    | LARGE
    | {
        "attention_factors": [2, 4, 8],
        "conditions": {
            "clip": {"type": "clip-condition", "embed_dim": 768, "tokens": 4, "width": 1536},
            "text": {"type": "clip-text-condition", "embed_dim": 768, "text_width": 768, "width": 1536},
        },
    }
)
LARGE_UPSAMPLER = {"type": "two-stage-unet", "first": HALF | LARGE, "last": HALF | LARGE}


def state_of(node):
    """The state of a model of ours with random weights."""
    torch.manual_seed(0)
    return models.build(node).state_dict()


def round_trip(layout, node):
    """Export a model's weights and import them: recipe and weights must come back. Returns the published state."""
    state = state_of(node)
    published = export_state(layout, node, state)
    model, back = import_state(dict(published))
    assert model == node
    assert back.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(back[key], tensor), key
    return published


def shapes_of(layout, node):
    """The shapes of a published state by key; nothing is allocated."""
    with torch.device("meta"):
        published = export_state(layout, node, models.build(node).state_dict())
    return {key: tuple(tensor.shape) for key, tensor in published.items()}


def assert_size(layout, node, count, keys):
    """A model has as many parameters, and where given keys, as published, and its keys and shapes give its recipe."""
    with torch.device("meta"):
        published = export_state(layout, node, models.build(node).state_dict())
    assert sum(tensor.numel() for tensor in published.values()) == count
    assert keys in (None, len(published))
    assert import_state(published)[0] == node
