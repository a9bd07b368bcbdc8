import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.convert import exporting
from dalle_cli.exits import USAGE, Failure
from dalle_cli.systems import device


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_precision_follows_the_hardware(monkeypatch, fast, dtype):
    monkeypatch.setattr(device, "has_fast_bf16", lambda: fast)
    assert device.choose() == device.Device("cpu", dtype)
    assert device.choose("float32").dtype == torch.float32
    assert device.choose("bf16").dtype == torch.bfloat16


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_uses_the_chosen_type(precision, dtype):
    layer, x = torch.nn.Linear(4, 4), torch.ones(2, 4)
    with device.choose(precision).autocast():
        assert layer(x).dtype == dtype
    assert layer(x).dtype == torch.float32


@pytest.mark.parametrize(("precision", "said"), [("fp8", "choose auto, float32, bf16, fp16"), ("fp16", "needs a CUDA")])
def test_unsupported_precision_is_a_usage_error(precision, said):
    with pytest.raises(Failure, match=said) as failure:
        device.choose(precision)
    assert failure.value.code == USAGE


def test_offloaded_models_are_loaded_in_their_turn_only(tiny):
    place = device.choose("float32", offload=True)
    task = place.load(tiny.clip, "clip")
    mapped = task.model.text_projection.weight.data_ptr()
    with place.turn(task), place.turn(task):  # one inside the other, as frozen are
        inside = task.embed_texts(["a red circle"])
    assert task.model.text_projection.weight.data_ptr() == mapped
    assert not task.model.text_projection.weight.requires_grad
    assert torch.equal(inside, checkpoint.load(tiny.clip, "clip").embed_texts(["a red circle"]))


def test_offloaded_half_weights_are_float32_in_their_turn(tiny, tmp_path):
    half = str(tmp_path / "half.safetensors")
    exporting.export_checkpoint(tiny.clip, tmp_path / "half.safetensors", "fp16", False)
    place = device.choose("float32", offload=True)
    task = place.load(half, "clip")
    assert task.model.text_projection.weight.dtype == torch.float16
    with place.turn(task):
        assert {value.dtype for value in task.model.parameters()} == {torch.float32}
        inside = task.embed_texts(["a red circle"])
    assert task.model.text_projection.weight.dtype == torch.float16
    assert torch.equal(inside, checkpoint.load(half, "clip").embed_texts(["a red circle"]))
