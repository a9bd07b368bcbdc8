"""Karlo, the public unCLIP (github.com/kakaobrain/karlo): what its layouts and those of diffusers share."""

from ..layout import State

LOW_RES = {"type": "low-res-condition", "factor": 4, "resize": "bicubic"}


def under(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def prior_task(model: dict) -> dict:
    return {"type": "diffusion-prior", "schedule": "cosine", "text_drop_prob": 0.2}


def decoder_task(model: dict) -> dict:
    return {"type": "decoder", "size": 64, "schedule": "cosine", "text_drop_prob": 0.3, "image_drop_prob": 0.1}


def upsampler_task(model: dict) -> dict:
    return {"type": "decoder", "size": 256, "schedule": "cosine", "variance": "small"}


# the folders of the published links are called by these
SUMS = {
    "85626483eaca9f581e2a78d31ff905ca": "prior-ckpt-step=01000000-of-01000000.ckpt",
    "efdf6206d8ed593961593dc029a8affa": "decoder-ckpt-step=01000000-of-01000000.ckpt",
    "4226b831ae0279020d134281f3c31590": "improved-sr-ckpt-step=1.2M.ckpt",
}
