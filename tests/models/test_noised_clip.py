import math

import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models.noised_clip import Block, NoisedCLIP, NoisedTextTransformer, NoisedVisionTransformer


def build(scale=100.0):
    torch.manual_seed(0)
    image = NoisedVisionTransformer(size=8, patch_size=4, width=32, depth=2, heads=4, steps=50)
    text = NoisedTextTransformer(vocab_size=30, context_length=6, width=32, depth=2, heads=4)
    return NoisedCLIP(16, image, text, scale).eval()


IDS, LENGTHS, T = torch.tensor([[1, 5, 6, 2, 0], [1, 7, 2, 0, 0]]), torch.tensor([4, 3]), torch.tensor([3, 40])


def test_unit_features_and_fixed_scale():
    clip = build()
    image, text, scale = clip(torch.randn(2, 3, 8, 8), T, IDS, LENGTHS)
    for features in (image, text):
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(2))
    assert scale.item() == pytest.approx(100)
    assert "logit_scale" not in clip.state_dict()


def test_scale_is_learned_by_default():
    clip = build(scale=None)
    assert clip.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    assert isinstance(clip.logit_scale, torch.nn.Parameter)


def test_pixels_are_normalised_as_published():
    clip, seen = build(), []
    clip.visual.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image = torch.rand(2, 3, 8, 8) * 2 - 1
    clip.encode_image(image, T)
    mean = torch.tensor([122.77093945, 116.74601272, 104.09373519]).view(3, 1, 1)
    std = torch.tensor([68.50053285, 66.63215831, 70.32316309]).view(3, 1, 1)
    torch.testing.assert_close(seen[0], ((image + 1) * 127.5 - mean) / std)


def test_image_feature_depends_on_timestep():
    clip, image = build(), torch.randn(1, 3, 8, 8)
    one, other = (clip.encode_image(image, torch.tensor([t])) for t in (3, 4))
    assert (one - other).abs().max() > 1e-3


def test_padding_is_ignored():
    clip = build()
    features = clip.encode_text(IDS, LENGTHS)
    changed = IDS.clone()
    changed[1, 3:] = 9
    torch.testing.assert_close(clip.encode_text(changed, LENGTHS), features)
    torch.testing.assert_close(clip.encode_text(IDS[1:, :3], LENGTHS[1:]), features[1:])
    assert (clip.encode_text(IDS[:1], LENGTHS[1:]) - features[:1]).abs().max() > 1e-3


def test_block_by_hand():
    torch.manual_seed(0)
    block, x = Block(32, 1), torch.randn(2, 5, 32)
    h = block.ln_1(x)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    scores = (block.q(h) @ block.k(h).mT / 32**0.5).masked_fill(later, float("-inf"))
    y = x + block.out(scores.softmax(dim=-1) @ block.v(h))
    torch.testing.assert_close(block(x, causal=True), y + block.c_proj(F.gelu(block.c_fc(block.ln_2(y)))))
    assert block.k.bias is None


def test_invalid_sizes_are_refused():
    clip = build()
    with pytest.raises(ValueError, match="pictures of 12x8 px for a tower of 8 px"):
        clip.encode_image(torch.zeros(1, 3, 8, 12), T[:1])
    with pytest.raises(ValueError, match="7 tokens are more than the text encoder's 6"):
        clip.encode_text(torch.zeros(1, 7, dtype=torch.long), LENGTHS[:1])
    with pytest.raises(ValueError, match="size 8 is not divisible by patch_size 3"):
        NoisedVisionTransformer(size=8, patch_size=3, width=32, depth=1, heads=4)
    with pytest.raises(ValueError, match="width 32 is not divisible by heads 5"):
        Block(32, 5)
    with pytest.raises(ValueError, match=r"model.text: NoisedVisionTransformer is no text tower"):
        NoisedCLIP(16, clip.visual, clip.visual)  # type: ignore[arg-type]
