import pytest
import torch
import torch.nn.functional as F

from dalle_cli.models import models
from dalle_cli.models.dvae import DVAE, Block, map_pixels, unmap_pixels


@pytest.fixture
def dvae():
    torch.manual_seed(0)
    return DVAE(vocab_size=16, n_hid=8, n_init=12, groups=3, num_res_blocks=2, gain=0.5).eval()


def pictures(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_published_size():
    with torch.device("meta"):
        model = models.build({"type": "dvae"})
    for half, parameters, keys in ((model.encoder, 53_786_240, 74), (model.decoder, 43_829_766, 76)):
        assert sum(parameter.numel() for parameter in half.parameters()) == parameters
        assert len(half.state_dict()) == keys
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["encoder.blocks.input.w"] == (256, 3, 7, 7)
    assert shapes["encoder.blocks.group_1.block_1.res_path.conv_1.w"] == (64, 256, 3, 3)
    assert shapes["encoder.blocks.output.conv.w"] == (8192, 2048, 1, 1)
    assert shapes["decoder.blocks.input.w"] == (128, 8192, 1, 1)
    assert shapes["decoder.blocks.group_1.block_1.res_path.conv_1.w"] == (512, 128, 1, 1)
    assert shapes["decoder.blocks.group_1.block_1.res_path.conv_4.w"] == (2048, 512, 3, 3)
    assert shapes["decoder.blocks.output.conv.w"] == (6, 256, 1, 1)
    assert {block.gain for block in model.modules() if isinstance(block, Block)} == {1 / 64}


@pytest.mark.parametrize("size", [(16, 16), (8, 20)])
def test_token_covers_a_square_of_pixels(dvae, size):
    height, width = size
    image = pictures(3, 3, height, width)
    assert dvae.factor == 4
    assert dvae.encode_logits(image).shape == (3, 16, height // 4, width // 4)
    codes = dvae.encode(image)
    assert codes.shape == (3, height // 4, width // 4)
    assert torch.equal(codes, dvae.encode_logits(image).argmax(1))
    assert dvae.decode(codes).shape == image.shape


def test_decoding_tokens_equals_one_hot_maps(dvae):
    codes = torch.randint(16, (3, 4, 5))
    weights = F.one_hot(codes, 16).permute(0, 3, 1, 2).float()
    expected = unmap_pixels(torch.sigmoid(dvae.decode_stats(weights)[:, :3]))
    torch.testing.assert_close(dvae.decode(codes), expected)
    assert dvae.decode(codes).abs().max() <= 1


def test_block_is_identity_plus_gain_times_branch(dvae):
    block = dvae.decoder.blocks.group_1.block_1
    x = torch.randn(2, 12, 4, 4)
    branch = x
    for i in range(1, 5):
        conv = getattr(block.res_path, f"conv_{i}")
        branch = F.conv2d(branch.relu(), conv.w, conv.b, padding="same")
    expected = F.conv2d(x, block.id_path.w, block.id_path.b) + 0.5 * branch
    kept = x.clone()
    torch.testing.assert_close(block(x), expected)
    assert torch.equal(x, kept), "nothing is changed in place"


def test_memory_format_changes_only_rounding(dvae):
    image = pictures(2, 3, 16, 16)
    logits = dvae.encode_logits(image)
    dvae.to(memory_format=torch.channels_last)
    torch.testing.assert_close(dvae.encode_logits(image), logits, rtol=1e-4, atol=1e-5)


def test_pixel_map_is_invertible():
    image = torch.linspace(-1, 1, 11)
    assert torch.allclose(map_pixels(image[[0, 5, 10]]), torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(unmap_pixels(map_pixels(image)), image)
    assert torch.equal(unmap_pixels(torch.tensor([0.0, 1.0])), torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize("size", [(15, 16), (16, 18)])
def test_indivisible_images_are_refused(dvae, size):
    with pytest.raises(ValueError, match=rf"pictures of {size[1]}x{size[0]} px do not divide by 4"):
        dvae.encode(pictures(1, 3, *size))


@pytest.mark.parametrize("arguments", [{"groups": 0}, {"num_res_blocks": 0}])
def test_empty_stack_is_refused(arguments):
    with pytest.raises(ValueError, match="1 to 16 groups of at least one block"):
        DVAE(vocab_size=4, n_hid=4, n_init=4, **arguments)


def test_overfits_one_image():
    """Straight through both halves, relaxed: what is drawn comes near what was shown."""
    torch.manual_seed(0)
    dvae = DVAE(vocab_size=16, n_hid=16, n_init=16, groups=2, num_res_blocks=1, gain=0.7)
    image = pictures(1, 3, 2, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    optimizer = torch.optim.Adam(dvae.parameters(), 1e-2)
    for _ in range(60):
        drawn = unmap_pixels(torch.sigmoid(dvae.decode_stats(dvae.encode_logits(image).softmax(1))[:, :3]))
        error = F.mse_loss(drawn, image)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert error < 0.01


@pytest.fixture
def patches():
    torch.manual_seed(0)
    model = DVAE(vocab_size=16, n_hid=8, n_init=8, groups=3, num_res_blocks=1, gain=0.5, patches=True).eval()
    model.start(pictures(8, 3, 16, 16))
    return model


def test_patch_codebook_starts_as_k_means(patches):
    image = pictures(8, 3, 16, 16)
    codes = patches.encode(image)
    assert len(codes.unique()) == 16
    cut = F.pixel_unshuffle(map_pixels(image), 4).permute(0, 2, 3, 1).flatten(0, 2)
    centres = torch.stack([cut[codes.flatten() == code].mean(0) for code in range(16)])
    nearest = torch.cdist(cut, centres).argmin(1)
    assert (nearest == codes.flatten()).float().mean() > 0.9  # but for the last step of the k-means
    drawn = F.pixel_unshuffle(patches.decode(codes), 4).permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(drawn, unmap_pixels(centres[codes.flatten()]), atol=0.15, rtol=0)


def test_patch_token_depends_only_on_its_pixels(patches):
    image = pictures(1, 3, 32, 32)
    other = image.clone()
    other[:, :, 16:20, 16:20] = -other[:, :, 16:20, 16:20]  # the place (4, 4)
    changed = (patches.encode_logits(image) - patches.encode_logits(other)).abs().amax(1)[0] > 0
    assert changed.nonzero().tolist() == [[4, 4]]


def test_decoding_patch_tokens_equals_one_hot_maps(patches):
    torch.nn.init.normal_(patches.decoder.blocks.output.conv.w)  # starts at zero
    codes = torch.randint(16, (3, 4, 5))
    weights = F.one_hot(codes, 16).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(patches.decode_token_stats(codes), patches.decode_stats(weights))


def test_too_few_patches_are_refused(patches):
    with pytest.raises(ValueError, match="1 different points make no 16 clusters"):
        patches.start(torch.zeros(4, 3, 16, 16))


def test_encoding_is_float32_under_autocast(dvae):
    image = pictures(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        codes = dvae.encode(image)
    assert torch.equal(codes, dvae.encode(image))
