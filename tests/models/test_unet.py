import pytest
import torch

from dalle_cli.models import models
from dalle_cli.models.unet import TwoStageUNet, UNet, position_waves

from .test_adm import awake

SIZE = {
    "type": "unet",
    "base_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": 1,
    "attention_factors": [2],
    "head_dim": 32,
}
TEXT = {"type": "text-condition", "vocab_size": 20, "context_length": 5, "width": 64, "depth": 1, "heads": 2}
T = torch.tensor([3, 700])


def build(conditions=None, **changes):
    torch.manual_seed(0)
    return awake(models.build(SIZE | {"conditions": conditions or {}} | changes)).eval()


def x():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def given():
    """Inputs of every kind of condition for two samples."""
    torch.manual_seed(2)
    return {
        "text": (torch.randint(20, (2, 5)), torch.tensor([[True] * 5, [True, True, False, False, False]])),
        "label": torch.tensor([3, 1]),
        "low_res": torch.randn(2, 3, 2, 2),
        "inpaint": (torch.randn(2, 3, 8, 8), torch.ones(2, 1, 8, 8)),
    }


ALL = {
    "text": TEXT,
    "label": {"type": "label-condition", "classes": 5},
    "low_res": {"type": "low-res-condition"},
    "inpaint": {"type": "inpaint-condition"},
}


@pytest.mark.parametrize("resample", ["resblock", "conv"])
@pytest.mark.parametrize("learned", [True, False])
def test_output_has_the_image_size(resample, learned):
    network = build(resample=resample, learned_variance=learned)
    for height, width in ((8, 8), (4, 12)):
        assert network(torch.randn(2, 3, height, width), T).shape == (2, 6 if learned else 3, height, width)


def test_a_fresh_network_predicts_zero():
    torch.manual_seed(0)
    assert (models.build(SIZE)(x(), T) == 0).all()


def test_output_depends_on_every_input():
    network, told = build(ALL), given()
    out = network(x(), T, **network.encode(**told))
    assert (network(x().flip(-1), T, **network.encode(**told)) - out).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    assert (network(x(), T + 50, **network.encode(**told)) - out).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    changes = {
        "text": (told["text"][0] + 1) % 20,
        "label": told["label"] + 1,
        "low_res": told["low_res"] + 1,
        "inpaint": told["inpaint"][0] + 1,
    }
    for name, change in changes.items():
        value = (change, told[name][1]) if isinstance(told[name], tuple) else change
        changed = network(x(), T, **network.encode(**told | {name: value}))
        assert (changed - out).abs().amax(dim=(1, 2, 3)).min() > 1e-4, name


def test_samples_are_independent():
    network, told = build(ALL), given()
    out = network(x(), T, **network.encode(**told))
    second = {
        name: tuple(part[1:] for part in value) if isinstance(value, tuple) else value[1:]
        for name, value in told.items()
    }
    torch.testing.assert_close(network(x()[1:], T[1:], **network.encode(**second)), out[1:], rtol=1e-4, atol=1e-4)


def test_gradient_checkpointing_keeps_gradients():
    gradients = []
    for checkpointing in (False, True):
        network = build({"text": TEXT}, gradient_checkpointing=checkpointing)
        network(x(), T, **network.encode(text=given()["text"])).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(recomputed, plain)


def test_last_layer_is_float32_under_autocast():
    network = build()
    with torch.autocast("cpu", torch.bfloat16):
        assert network(x(), T).dtype == torch.float32


def test_wrong_conditions_are_named():
    network = build({"label": ALL["label"]})
    with pytest.raises(ValueError, match="a network with conditions label was given none"):
        network.encode()
    with pytest.raises(ValueError, match="a network with conditions label was given label, text"):
        network.encode(label=T, text=T)
    assert build().encode() == {}


def test_invalid_arguments_are_refused():
    network = build({"low_res": ALL["low_res"]})
    with pytest.raises(ValueError, match="3 input channels for a network of 6"):
        network(x(), T)
    with pytest.raises(ValueError, match="a condition of 12x12 px for a picture of 8x8 px"):
        network(x(), T, **network.encode(low_res=torch.zeros(2, 3, 3, 3)))
    with pytest.raises(ValueError, match="pictures of 9x8 px do not divide by 2"):
        build()(torch.zeros(2, 3, 8, 9), T)
    with pytest.raises(ValueError, match=r"tokens of different widths \(text 64, clip 16\)"):
        build({"text": TEXT, "clip": {"type": "clip-condition", "embed_dim": 8, "tokens": 2, "width": 16}})
    with pytest.raises(ValueError, match=r"model.conditions.other: UNet is no condition"):
        build({"other": SIZE})


def test_patches_become_positions():
    network = build(ALL, patch_size=2, learned_variance=True)
    told = network.encode(**given())
    out = network(x(), T, **told)
    assert out.shape == (2, 6, 8, 8)
    stages = network.input_blocks[0][0]
    assert stages.in_channels == 4 * network.n_in
    # the channels of one pixel of the picture stay in its place: a change of a corner is largest there
    changed = network(x() + 3 * (torch.arange(64).view(8, 8) == 0), T, **told)
    assert (changed - out).abs().sum(dim=(0, 1))[:2, :2].mean() > (changed - out).abs().mean(dim=(0, 1)).mean()
    with pytest.raises(ValueError, match="pictures of 6x8 px do not divide by 4"):
        build(patch_size=2)(torch.zeros(2, 3, 8, 6), T)
    with pytest.raises(ValueError, match=r"model\.patch_size: 0 is not at least 1"):
        build(patch_size=0)


@pytest.mark.parametrize("patch", [1, 2])
def test_adopts_weights_of_a_smaller_network(patch):
    """Channels of a condition in the middle, too; the new ones start at zero."""
    small = build({"text": TEXT, "low_res": ALL["low_res"]}, patch_size=patch)
    large = build({"text": TEXT, "inpaint": ALL["inpaint"], "low_res": ALL["low_res"]}, patch_size=patch)
    assert large.input_channels() == {"": slice(0, 3), "inpaint": slice(3, 7), "low_res": slice(7, 10)}
    large.load_state_dict(large.adopt(small.state_dict(), small))
    told = given()
    fewer = {name: told[name] for name in ("text", "low_res")}
    expected = small(x(), T, **small.encode(**fewer))
    torch.testing.assert_close(large(x(), T, **large.encode(**fewer, inpaint=told["inpaint"])), expected)
    state = small.state_dict()
    assert small.adopt(state, large) is state  # nothing is forgotten silently
    assert small.adopt(state, small) is state
    assert small.adopt(state, torch.nn.Linear(1, 1)) is state


def last_step(**changes):
    node = SIZE | {"conditions": {"low_res": ALL["low_res"]}, "learned_variance": False} | changes
    torch.manual_seed(0)
    return models.build({"type": "two-stage-unet", "first": node, "last": node})


def test_last_step_uses_the_second_network():
    both = last_step()
    awake(both.first)
    assert isinstance(both, TwoStageUNet)
    told = both.encode(low_res=torch.randn(2, 3, 2, 2))
    for t, network in ((999, both.first), (1, both.first), (0, both.last)):
        times = torch.full((2,), t)
        assert torch.equal(both(x(), times, **told), network(x(), times, **told))
    assert (both(x(), torch.tensor([1, 1]), **told) != 0).any()
    assert (both(x(), torch.tensor([0, 0]), **told) == 0).all()


def test_shared_conditions_have_no_weights():
    with pytest.raises(ValueError, match=r"model.first.conditions: only conditions without weights"):
        last_step(conditions={"text": TEXT})
    network = build()
    with pytest.raises(ValueError, match=r"model.last: Linear is no U-Net"):
        TwoStageUNet(network, torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    assert isinstance(network, UNet)


def test_waves_tell_places_apart():
    planes = position_waves(3, torch.zeros(2, 5, 8, 16))
    assert planes.shape == (1, 12, 8, 16)
    assert planes.flatten(2)[0].T.unique(dim=0).shape[0] == 8 * 16
    assert torch.allclose(planes[0, 0, :, 3], torch.sin(2 * torch.pi * (torch.arange(8) + 0.5) / 8))
    assert torch.equal(planes[0, :6, :, 0], planes[0, :6, :, 9]), "half of them are of the height alone"


def test_position_bands_encode_positions():
    network, blind = build(position_bands=2), build()
    assert torch.equal(network.input_blocks[0][0].weight, blind.input_blocks[0][0].weight)
    even = torch.zeros(2, 3, 32, 32)
    inner = [net(even, T)[..., 14:18, 14:18].std(dim=(-1, -2)).mean() for net in (network, blind)]
    assert inner[0] > 10 * inner[1]


def test_residual_adds_the_small_image():
    conditions = {"inpaint": ALL["inpaint"], "low_res": ALL["low_res"]}
    torch.manual_seed(0)
    network = models.build(SIZE | {"conditions": conditions, "residual": "low_res"})
    told = network.encode(**{name: given()[name] for name in conditions})
    out = network(x(), T, **told)
    assert torch.equal(out[:, :3], told["channels"][:, 4:7])
    assert (out[:, 3:] == 0).all()


@pytest.mark.parametrize("name", ["text", "inpaint", "nowhere"])
def test_residual_must_be_an_image(name):
    with pytest.raises(ValueError, match=rf"model\.residual: '{name}' is no condition that is a picture"):
        build(ALL, residual=name)
