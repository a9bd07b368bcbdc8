import pytest
import torch

from dalle_cli.convert import dtypes
from dalle_cli.exits import USAGE, Failure


def test_names_and_dtypes():
    assert dtypes.parse(None) is None
    assert [dtypes.name(dtypes.parse(name)) for name in dtypes.DTYPES] == ["float32", "bfloat16", "float16"]
    with pytest.raises(Failure, match="--precision int8: choose one of float32, bf16, fp16") as caught:
        dtypes.parse("int8")
    assert caught.value.code == USAGE


def test_integers_are_not_cast():
    assert dtypes.cast(torch.arange(3), torch.float16).dtype == torch.int64
    assert dtypes.cast(torch.ones(2), torch.float16).dtype == torch.float16
    assert dtypes.cast(torch.ones(2, 3).T, None).is_contiguous()
