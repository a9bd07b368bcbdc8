"""Name common weights that are not supported, by their keys, so that the error can say what they are."""

import re

from .layout import State

# A name fits where each of its patterns matches the beginning of some key; the first name that fits is used.
UNSUPPORTED = {
    "DALLE-pytorch's dVAE": (r"codebook\.weight$", r"decoder\.", r"encoder\."),
    "DALLE-pytorch's transformer": (r"text_emb\.", r"to_logits\."),
    "dalle2-pytorch's prior": (r"net\.causal_transformer\.",),
    "dalle2-pytorch's decoder": (r"unets\.0\.",),
    "Stable Diffusion": (r"model\.diffusion_model\.",),
    "a ControlNet of diffusers": (r"controlnet_cond_embedding\.", r"conv_in\.weight$"),
    "a U-Net of diffusers": (r"conv_in\.weight$", r"down_blocks\."),
    "an autoencoder of diffusers": (r"encoder\.down_blocks\.",),
    "taming's VQGAN with Gumbel quantization": (r"quantize\.embed\.weight$", r"encoder\.down\.0\."),
    "taming's transformer": (r"transformer\.tok_emb\.weight$", r"first_stage_model\."),
    "latent diffusion's continuous autoencoder": (r"encoder\.down\.0\.", r"quant_conv\."),
    "SigLIP": (r"logit_bias$", r"logit_scale$"),
    "BLIP": (r"visual_encoder\.", r"text_(?:en|de)coder\."),
    "a CLIP with a timm tower": (r"visual\.trunk\.",),
    "a Vision Transformer of timm": (r"patch_embed\.proj\.weight$", r"blocks\.0\.attn\.qkv\."),
    "a ResNet": (r"layer1\.0\.conv1\.weight$", r"fc\.weight$"),
    "a Swin Transformer": (r"layers\.0\.blocks\.0\.attn\.relative_position_bias_table$",),
    "Segment Anything": (r"image_encoder\.patch_embed\.", r"mask_decoder\."),
    "DiT": (r"x_embedder\.proj\.weight$", r"blocks\.0\.adaLN_modulation\."),
    "T5": (r"shared\.weight$", r"encoder\.block\.0\.layer\.0\."),
    "BERT": (r"(?:bert\.)?embeddings\.word_embeddings\.weight$",),
    "GPT-2": (r"(?:transformer\.)?wte\.weight$", r"(?:transformer\.)?h\.0\."),
    "LLaMA, or a language model like it": (
        r"(?:model\.)?layers\.0\.self_attn\.q_proj\.",
        r"(?:model\.)?embed_tokens\.",
    ),
    "Whisper": (r"(?:model\.)?encoder\.conv1\.weight$", r"(?:model\.)?decoder\."),
    "a LoRA adapter": (r".*lora_(?:A|B|up|down)\b",),
}


def name(state: State) -> str | None:
    """Return what a state of an unknown layout is, by its keys, None where that is unknown too."""
    for format_name, patterns in UNSUPPORTED.items():
        if all(any(re.match(pattern, key) for key in state) for pattern in patterns):
            return format_name
    return None
