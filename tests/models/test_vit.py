import pytest
import torch

from dalle_cli.models.vit import MLP, LayerNorm, VisionTransformer


def test_quick_gelu():
    mlp, x = MLP(4), torch.randn(3, 4)
    hidden = mlp.c_fc(x)
    torch.testing.assert_close(mlp(x), mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden)))


def test_gelu_reaches_every_block():
    torch.manual_seed(0)
    towers = [VisionTransformer(16, 8, 32, 2, 4, activation) for activation in ("quick-gelu", "gelu")]
    towers[1].load_state_dict(towers[0].state_dict())
    image = torch.randn(2, 3, 16, 16)
    assert 1e-4 < (towers[0](image) - towers[1](image)).abs().max() < 0.1
    for block in towers[1].transformer.resblocks:
        x = torch.randn(2, 32)
        torch.testing.assert_close(block.mlp(x), block.mlp.c_proj(torch.nn.functional.gelu(block.mlp.c_fc(x))))


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_layer_norm_keeps_the_dtype(weights):
    torch.manual_seed(0)
    norm = LayerNorm(512).to(weights)
    x = (torch.randn(4, 512) + 30).bfloat16()  # bf16 sums of numbers this far from zero would lose the deviation
    out = norm(x)
    assert out.dtype == torch.bfloat16
    expected = (x.double() - x.double().mean(-1, keepdim=True)) / x.double().std(-1, correction=0, keepdim=True)
    torch.testing.assert_close(out.double(), expected, rtol=2**-8, atol=1e-2)


def test_feature_depends_on_patch_positions():
    torch.manual_seed(0)
    tower = VisionTransformer(size=16, patch_size=8, width=32, depth=2, heads=4).eval()
    image = torch.randn(1, 3, 16, 16)
    feature = tower(image)
    assert feature.shape == (1, 32)
    for rows in (slice(0, 8), slice(8, 16)):
        for columns in (slice(0, 8), slice(8, 16)):
            changed = image.clone()
            changed[..., rows, columns] += 1
            assert (tower(changed) - feature).abs().max() > 1e-3
    assert (tower(image.roll(8, dims=-1)) - feature).abs().max() > 1e-3


def test_wrong_image_size_is_refused():
    tower = VisionTransformer(size=16, patch_size=8, width=32, depth=1, heads=4)
    with pytest.raises(ValueError, match="pictures of 24x16 px for a tower of 16 px"):
        tower(torch.zeros(1, 3, 16, 24))


def test_indivisible_size_is_refused():
    with pytest.raises(ValueError, match="size 224 is not divisible by patch_size 15"):
        VisionTransformer(size=224, patch_size=15, width=32, depth=1, heads=4)
