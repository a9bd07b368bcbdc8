import pytest
import torch

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.recognition import export_state, import_state
from tests.convert.test_importing import CLIP, published


def test_unknown_keys_are_named():
    with pytest.raises(ConvertError, match=r"no known layout has these keys \(a, b, ...\)"):
        import_state({"a": torch.zeros(1), "b": torch.zeros(1)})
    with pytest.raises(ConvertError, match="no known layout"):
        import_state({})


def test_two_models_in_one_file_are_refused():
    other = {"encoder.blocks.group_1.block_1.res_path.conv_1.w": torch.zeros(1)}
    with pytest.raises(ConvertError, match="several models in one file: openai-clip, openai-dvae"):
        import_state(published("openai-clip") | other)


def test_unknown_layouts_get_a_suggestion():
    with pytest.raises(ConvertError, match=r"no layout 'openai-clp' \(did you mean 'openai-clip'\?\)"):
        export_state("openai-clp", CLIP, {})
