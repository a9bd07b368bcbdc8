"""Karlo, the public unCLIP (github.com/kakaobrain/karlo): what its layouts and those of diffusers share."""

from ..layout import State

LOW_RES = {"type": "low-res-condition", "factor": 4, "resize": "bicubic"}
# The published links end in folders of these names.
CHECKSUMS = {
    "85626483eaca9f581e2a78d31ff905ca": "prior-ckpt-step=01000000-of-01000000.ckpt",
    "efdf6206d8ed593961593dc029a8affa": "decoder-ckpt-step=01000000-of-01000000.ckpt",
    "4226b831ae0279020d134281f3c31590": "improved-sr-ckpt-step=1.2M.ckpt",
}
PRIOR_WIDTH, DECODER_CHANNELS = 2048, 320  # of the published models, whose heads have 64 channels


def under(state: State, prefix: str) -> State:
    """Return the part of a state whose keys have a prefix, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def prior_task(model: dict) -> dict:
    """Return the task node of the prior."""
    return {"type": "diffusion-prior", "schedule": "cosine", "text_drop_prob": 0.2}


def prior_assumed(model: dict, state: State) -> tuple[str, ...]:
    """Return the recipe keys of a prior that its weights do not store."""
    return () if model["width"] == PRIOR_WIDTH else ("model.heads",)


def decoder_task(model: dict) -> dict:
    """Return the task node of the decoder."""
    return {"type": "decoder", "size": 64, "schedule": "cosine", "text_drop_prob": 0.3, "image_drop_prob": 0.1}


def upsampler_task(model: dict) -> dict:
    """Return the task node of the upsampler."""
    return {"type": "decoder", "size": 256, "schedule": "cosine", "variance": "small"}
