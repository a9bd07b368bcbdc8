import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models import models
from dalle_cli.models.vqgan import VQGAN, Attention, Downsample, ResBlock


@pytest.fixture
def vqgan():
    torch.manual_seed(0)
    return VQGAN(
        vocab_size=24,
        embed_dim=6,
        base_channels=32,
        channel_mult=[1, 2],
        num_res_blocks=1,
        attention_factors=[2],
        latent_channels=8,
    ).eval()


def pictures(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(("vocab", "total"), [(16384, 76_073_859), (1024, 72_141_699)])
def test_published_parameter_counts(vocab, total):
    with torch.device("meta"):
        model = models.build({"type": "vqgan", "vocab_size": vocab})
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert counts.pop("encoder") == 29_298_176
    assert counts.pop("decoder") == 42_449_795
    assert counts == {"quantize": vocab * 256, "quant_conv": 65_792, "post_quant_conv": 65_792}
    assert sum(p.numel() for p in model.parameters()) == total
    assert model.factor == 16


def test_keys_are_the_published_ones():
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in VQGAN().state_dict().items()}
    assert shapes["quantize.embedding.weight"] == (16384, 256)
    assert shapes["quant_conv.weight"] == shapes["post_quant_conv.weight"] == (256, 256, 1, 1)
    assert shapes["encoder.down.2.block.0.nin_shortcut.weight"] == (256, 128, 1, 1)
    assert "encoder.down.2.block.1.nin_shortcut.weight" not in shapes
    assert shapes["decoder.up.1.block.0.nin_shortcut.weight"] == (128, 256, 1, 1)
    levels = {key.split(".")[2] for key in shapes if key.startswith("encoder.down.") and "downsample.conv" in key}
    assert levels == {"0", "1", "2", "3"}
    levels = {key.split(".")[2] for key in shapes if key.startswith("decoder.up.") and "upsample.conv" in key}
    assert levels == {"1", "2", "3", "4"}
    seeing = sorted(key for key in shapes if key.endswith(".q.weight"))
    assert seeing == [
        *("decoder.mid.attn_1.q.weight", "decoder.up.4.attn.0.q.weight", "decoder.up.4.attn.1.q.weight"),
        *("decoder.up.4.attn.2.q.weight", "encoder.down.4.attn.0.q.weight", "encoder.down.4.attn.1.q.weight"),
        "encoder.mid.attn_1.q.weight",
    ]
    assert shapes["encoder.mid.attn_1.proj_out.weight"] == (512, 512, 1, 1)


def test_token_is_the_nearest_vector(vqgan):
    image = pictures(2, 3, 16, 24)
    latent = vqgan.encode_latent(image)
    codes = vqgan.encode(image)
    assert codes.shape == (2, 8, 12)
    distances = torch.cdist(latent.permute(0, 2, 3, 1).flatten(0, 2), vqgan.quantize.embedding.weight)
    assert torch.equal(codes.flatten(), distances.argmin(dim=1))
    assert torch.equal(vqgan.quantize(vqgan.vectors(codes)), codes)


def test_codes_become_pictures(vqgan):
    codes = torch.arange(24).view(1, 4, 6)
    drawn = vqgan.decode(codes)
    assert drawn.shape == (1, 3, 8, 12)
    torch.testing.assert_close(drawn, vqgan.decode_latent(vqgan.vectors(codes)).clamp(-1, 1))
    with torch.no_grad():
        vqgan.decoder.conv_out.bias.add_(3)
    assert vqgan.decode(codes).max() == 1


def test_encoding_is_float32_under_autocast(vqgan):
    image = pictures(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        codes = vqgan.encode(image)
    assert torch.equal(codes, vqgan.encode(image))


def test_attention_covers_all_positions():
    torch.manual_seed(0)
    layer, x = Attention(32), torch.randn(2, 32, 3, 4)
    seen = F.group_norm(x, 32, layer.norm.weight, layer.norm.bias, eps=1e-6)
    q, k, v = (part(seen).flatten(2) for part in (layer.q, layer.k, layer.v))
    weights = (torch.einsum("bci,bcj->bij", q, k) / 32**0.5).softmax(dim=2)
    expected = x + layer.proj_out(torch.einsum("bij,bcj->bci", weights, v).view_as(x))
    torch.testing.assert_close(layer(x), expected)


def test_block_is_shortcut_plus_branch():
    torch.manual_seed(0)
    block, x = ResBlock(32, 64), torch.randn(2, 32, 4, 4)
    branch = block.conv1(F.silu(F.group_norm(x, 32, eps=1e-6)))
    branch = block.conv2(F.silu(F.group_norm(branch, 32, eps=1e-6)))
    torch.testing.assert_close(block(x), F.conv2d(x, block.nin_shortcut.weight, block.nin_shortcut.bias) + branch)


def test_downsampling_pads_right_and_bottom():
    layer = Downsample(1)
    with torch.no_grad():
        layer.conv.weight.copy_(torch.eye(3).view(1, 1, 3, 3) * torch.tensor([1.0, 10, 100]))
        layer.conv.bias.zero_()
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert layer(x)[0, 0].tolist() == [[0 + 50 + 1000, 2 + 70], [8 + 130, 10 + 150]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"channel_mult": []}, "1 to 16 levels"),
        ({"num_res_blocks": 0}, "at least one block"),
        ({"vocab_size": 0}, "over 0"),
        ({"base_channels": 40}, "40 channels: not a multiple of 32"),
        ({"attention_factors": [3]}, "3 is no level's factor"),
    ],
)
def test_empty_network_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        VQGAN(
            **{
                "vocab_size": 4,
                "base_channels": 32,
                "latent_channels": 4,
                "channel_mult": [1, 1],
                "attention_factors": [1],
                **arguments,
            }
        )


def test_indivisible_images_are_refused(vqgan):
    with pytest.raises(ValueError, match="pictures of 18x15 px do not divide by 2"):
        vqgan.encode(pictures(1, 3, 15, 18))
