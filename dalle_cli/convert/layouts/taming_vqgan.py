"""taming's VQGAN (github.com/CompVis/taming-transformers), and latent diffusion's autoencoders with a codebook.

Training checkpoints also hold the loss, `loss.`: its discriminator and the network of its perceptual distance.
"""

from ..layout import Layout, Row, State, count_layers


def _recognizes(state: State) -> bool:
    return "quantize.embedding.weight" in state and "encoder.down.0.block.0.conv1.weight" in state


def _model(state: State) -> dict:
    levels = count_layers(state, r"encoder\.down\.(\d+)\.")
    channels = len(state["encoder.conv_in.weight"])
    vocab_size, embed_dim = state["quantize.embedding.weight"].shape
    return {
        "type": "vqgan",
        "vocab_size": vocab_size,
        "embed_dim": embed_dim,
        "base_channels": channels,
        "channel_mult": [len(state[f"encoder.down.{i}.block.0.conv1.weight"]) / channels for i in range(levels)],
        "num_res_blocks": count_layers(state, r"encoder\.down\.0\.block\.(\d+)\."),
        "attention_factors": [2**i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in state],
        "latent_channels": len(state["encoder.conv_out.weight"]),
    }


LAYOUT = Layout(
    name="taming-vqgan",
    type="vqgan",
    recognizes=_recognizes,
    model=_model,
    table=lambda model: [Row(r"(.+)", r"\1")],
    training_keys=r"loss\.",
    task=lambda model: {"type": "vqgan"},
    wrapper="state_dict",
)
