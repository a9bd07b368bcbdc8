import pytest
import torch

from dalle_cli.exits import USAGE, Failure
from dalle_cli.generate import device


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_what_the_hardware_multiplies_fast(monkeypatch, fast, dtype):
    monkeypatch.setattr(device, "fast_bf16", lambda: fast)
    assert device.choose() == device.Device("cpu", dtype)
    assert device.choose("float32").dtype == torch.float32
    assert device.choose("bf16").dtype == torch.bfloat16


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_are_of_the_type_that_was_chosen(precision, dtype):
    layer, x = torch.nn.Linear(4, 4), torch.ones(2, 4)
    with device.choose(precision).autocast():
        assert layer(x).dtype == dtype
    assert layer(x).dtype == torch.float32


@pytest.mark.parametrize(("precision", "said"), [("fp8", "choose auto, float32, bf16, fp16"), ("fp16", "needs a CUDA")])
def test_what_the_machine_cannot_do_is_a_usage_error(precision, said):
    with pytest.raises(Failure, match=said) as failure:
        device.choose(precision)
    assert failure.value.code == USAGE
