import pytest
import torch

from dalle_cli.registry import RecipeError
from dalle_cli.training import precision


@pytest.mark.parametrize(("fast", "chosen"), [(True, "bf16"), (False, "no")])
def test_auto_takes_bf16_where_it_is_fast(monkeypatch, fast, chosen):
    monkeypatch.setattr(precision, "fast_bf16", lambda: fast)
    assert precision.choose("auto") == chosen


def test_what_is_asked_for_is_taken():
    assert (precision.choose("float32"), precision.choose("bf16")) == ("no", "bf16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_fp16_needs_a_gpu():
    with pytest.raises(RecipeError, match=r"train\.precision: fp16 needs a CUDA device"):
        precision.choose("fp16")
