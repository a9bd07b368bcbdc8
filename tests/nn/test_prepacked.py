import pytest
import torch
from torch import nn

from dalle_cli.nn import prepacked as module
from dalle_cli.nn.attention import SelfAttention
from dalle_cli.nn.prepacked import prepacked, prepacked_bytes, without_prepacking

here = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


def network(**options):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(512, 1024, **options), nn.GELU(), nn.Linear(1024, 512, **options)).eval()


@torch.no_grad()
def through(model, x):
    with prepacked(model):
        return model(x)


@here
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (2, 3), (64,), (2, 2, 100)])
def test_linear_is_unchanged(bias, shape):
    model, x = network(bias=bias), torch.randn(*shape, 512)
    with torch.no_grad():
        torch.testing.assert_close(through(model, x), model(x), rtol=1e-4, atol=1e-5)


@here
def test_rows_are_bit_identical_at_any_batch_size():
    model, x = network(), torch.randn(300, 512)
    with prepacked(model), torch.no_grad():
        alone = torch.cat([model(row[None]) for row in x[:8]])
        for count in (8, 9, 64, 300):
            assert torch.equal(model(x[:count])[:8], alone)


@here
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"bias": False}, {"padding": 1, "dilation": 2}, {"groups": 2}])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolution_is_unchanged(options, layout):
    """Pictures of one size after those of another, too."""
    torch.manual_seed(0)
    layer = nn.Conv2d(256, 256, 3, **options)
    with prepacked(layer), torch.no_grad():
        assert "forward" in vars(layer)
        found = [
            (layer(x), nn.Conv2d.forward(layer, x))
            for x in (torch.randn(n, 256, side, side).to(memory_format=layout) for n, side in ((2, 8), (1, 8), (2, 13)))
        ]
    for ours, expected in found:
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@here
def test_convolution_dtype():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(256, 256, 3, padding=1), torch.randn(2, 256, 9, 9)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected, found = layer(x), through(layer, x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected.float(), rtol=0.02, atol=0.02)


@here
@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_projection_is_prepacked(causal):
    torch.manual_seed(0)
    layer, x = SelfAttention(512, 8), torch.randn(2, 9, 512)
    with torch.no_grad(), prepacked(layer):
        assert "project" in vars(layer)
        found = layer(x, causal)
    with torch.no_grad():
        torch.testing.assert_close(found, layer(x, causal), rtol=1e-4, atol=1e-5)


@here
def test_gradients_bypass_prepacking():
    model, x = network(), torch.randn(2, 512, requires_grad=True)
    with prepacked(model):
        model(x).sum().backward()
    assert x.grad.any()
    assert model[0].weight.grad.any()


@here
def test_several_models_count_together(monkeypatch):
    one, other = network(), network()
    alone = prepacked_bytes(one)
    assert prepacked_bytes(one, other) == 2 * alone
    monkeypatch.setattr(module, "total_memory", lambda: 4 * alone)
    with prepacked(one, other):
        assert "forward" not in vars(one[0])


@here
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("wide", "out"), [(512, 1024), (1280, 1536), (2048, 512), (4096, 1536)])
def test_single_row_is_bit_identical(kind, wide, out):
    torch.manual_seed(0)
    layer, x = nn.Linear(wide, out).to(kind), torch.randn(5, wide).to(kind)
    with torch.no_grad(), prepacked(layer):
        whole = layer(x)
        assert torch.equal(layer(x[:1]), whole[:1])
        assert torch.equal(layer(x[None, 1:2]), whole[None, 1:2])
        assert torch.equal(layer(x[2]), whole[2])


@here
def test_memory_is_shared_by_processes(monkeypatch):
    model = network()
    room = 4 * 2 * 512 * 1024 * 4
    monkeypatch.setattr(module, "total_memory", lambda: room)
    assert prepacked_bytes(model) > 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert prepacked_bytes(model) == 0


def test_without_prepacking():
    model = network()
    with without_prepacking():
        assert prepacked_bytes(model) == 0
        with prepacked(model):
            assert "forward" not in vars(model[0])
    assert prepacked_bytes(model) or not torch.backends.mkldnn.is_available()


def fails_inside(model):
    with prepacked(model):
        assert "forward" in vars(model[0])
        with prepacked(model):  # once is enough
            pass
        assert "forward" in vars(model[0])
        raise RuntimeError("stop")


@here
def test_prepacking_ends_with_the_context():
    model = network()
    with pytest.raises(RuntimeError, match="stop"):
        fails_inside(model)
    assert "forward" not in vars(model[0])
    assert model(torch.randn(2, 512, requires_grad=True)).requires_grad


@here
def test_copies_have_autocast_dtype():
    model = network()
    weights = 2 * 512 * 1024
    assert prepacked_bytes(model) == 4 * weights
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with torch.autocast("cpu", torch.bfloat16):
        assert prepacked_bytes(model) == (2 * weights if fast else 0)
        x = torch.randn(4, 512)
        with torch.no_grad():
            expected, found = model(x), through(model, x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected.float(), rtol=0.02, atol=0.02)


@here
def test_disabled_autocast_is_respected(monkeypatch):
    """Where the machine packs bfloat16 or not: what is packed in one type is not used for another."""
    model, x = network(), torch.randn(4, 512)
    with torch.no_grad(), prepacked(model), torch.autocast("cpu", torch.bfloat16):
        inside = model(x)
        with torch.autocast("cpu", enabled=False):
            outside = model(x)
    assert inside.dtype == torch.bfloat16
    assert outside.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(outside, model(x), rtol=1e-4, atol=1e-5)


def test_unsuitable_layers_are_skipped(monkeypatch):
    assert (
        prepacked_bytes(nn.Linear(64, 64), min_weights=64**2 + 1)
        == prepacked_bytes(nn.Conv2d(64, 64, 3, padding_mode="reflect"))
        == 0
    )
    assert prepacked_bytes(network().to("meta")) == 0
    monkeypatch.setattr(module, "total_memory", lambda: 15 << 20)  # the copies take 4 of them
    model = network()
    assert prepacked_bytes(model) == 0
    with prepacked(model):
        assert "forward" not in vars(model[0])
