import pytest
import torch

from dalle_cli.convert import unsupported_formats
from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.recognition import export_state, import_state, recognize
from dalle_cli.models import models

KEYS = {
    "DALLE-pytorch's dVAE": ["codebook.weight", "encoder.0.0.weight", "decoder.0.weight"],
    "DALLE-pytorch's transformer": ["text_emb.weight", "image_emb.weight", "to_logits.1.weight", "vae.codebook.weight"],
    "dalle2-pytorch's prior": ["net.causal_transformer.layers.0.0.to_q.weight", "noise_scheduler.betas"],
    "dalle2-pytorch's decoder": ["unets.0.init_conv.convs.0.weight", "noise_schedulers.0.betas"],
    "Stable Diffusion": ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight"],
    "a ControlNet of diffusers": ["conv_in.weight", "controlnet_cond_embedding.conv_in.weight", "down_blocks.0.x"],
    "a U-Net of diffusers": ["conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"],
    "an autoencoder of diffusers": ["encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.conv_in.weight"],
    "taming's VQGAN with Gumbel quantization": ["quantize.embed.weight", "encoder.down.0.block.0.conv1.weight"],
    "taming's transformer": ["transformer.tok_emb.weight", "first_stage_model.encoder.conv_in.weight"],
    "latent diffusion's continuous autoencoder": ["encoder.down.0.block.0.conv1.weight", "quant_conv.weight"],
    "SigLIP": ["logit_bias", "logit_scale", "visual.trunk.pos_embed", "text.text_projection.weight"],
    "BLIP": ["visual_encoder.blocks.0.attn.qkv.weight", "text_decoder.cls.predictions.bias"],
    "a CLIP with a timm tower": ["visual.trunk.stem.0.weight", "text.positional_embedding", "logit_scale"],
    "a Vision Transformer of timm": ["cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"],
    "a ResNet": ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"],
    "a Swin Transformer": ["patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table"],
    "Segment Anything": ["image_encoder.patch_embed.proj.weight", "mask_decoder.iou_token.weight"],
    "DiT": ["x_embedder.proj.weight", "pos_embed", "blocks.0.adaLN_modulation.1.weight"],
    "T5": ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"],
    "BERT": ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.self.query.weight"],
    "GPT-2": ["wte.weight", "wpe.weight", "h.0.attn.c_attn.weight"],
    "LLaMA, or a language model like it": ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"],
    "Whisper": ["model.encoder.conv1.weight", "model.decoder.embed_tokens.weight"],
    "a LoRA adapter": ["lora_unet_down_blocks_0.lora_down.weight", "lora_unet_down_blocks_0.lora_up.weight"],
}


def state(keys):
    return {key: torch.zeros(1) for key in keys}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", unsupported_formats.UNSUPPORTED)
def test_unsupported_formats_are_named(name, prefix):
    with pytest.raises(ConvertError, match=f"weights of {name} are not supported"):
        import_state(state(prefix + key for key in KEYS[name]))


def test_twenty_formats_are_known():
    assert len(unsupported_formats.UNSUPPORTED) >= 20


def test_all_patterns_must_match():
    assert unsupported_formats.name(state(["layer1.0.conv1.weight"])) is None
    assert unsupported_formats.name({}) is None


@pytest.mark.parametrize("layout", sorted({"openai-clip", "open-clip", "hf-clip", "openai-dvae", "openai-adm"}))
def test_supported_layouts_are_not_named(layout):
    vit = {"type": "vit", "size": 16, "patch_size": 8, "width": 64, "depth": 1, "heads": 1}
    text = {"type": "clip-text", "vocab_size": 50, "context_length": 10, "width": 64, "depth": 1, "heads": 1}
    nodes = {
        "openai-dvae": {"type": "dvae", "vocab_size": 24, "n_hid": 8, "n_init": 4, "groups": 2, "num_res_blocks": 1},
        "openai-adm": {
            **{
                "type": "unet",
                "base_channels": 64,
                "channel_mult": [1, 2],
                "num_res_blocks": 1,
                "attention_factors": [2],
                "conditions": {},
            },
            **{"head_dim": 64, "attention_order": "legacy"},
        },
    }
    node = nodes.get(layout, {"type": "clip", "embed_dim": 12, "image": vit, "text": text})
    published = export_state(layout, node, models.build(node).state_dict())
    assert unsupported_formats.name(published) is None
    assert recognize(published)[0].name == layout
