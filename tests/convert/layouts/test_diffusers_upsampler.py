import pytest

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import export_state, import_state, recognize
from tests.convert.miniatures import LARGE_UPSAMPLER, UPSAMPLER, assert_size, round_trip, shapes_of, state_of


def test_round_trip():
    published = round_trip("diffusers-upsampler", UPSAMPLER)
    assert recognize(published)[0].name == "diffusers-upsampler"
    config = all_layouts()["diffusers-upsampler"].config
    assert config.read(UPSAMPLER, config.write(UPSAMPLER)) == UPSAMPLER


def test_keys_are_the_published_ones():
    shapes = shapes_of("diffusers-upsampler", UPSAMPLER)
    assert shapes["super_res_first.conv_in.weight"] == (64, 6, 3, 3)
    assert shapes["super_res_last.up_blocks.1.resnets.1.conv_shortcut.weight"] == (64, 128, 1, 1)


def test_published_size():
    assert_size("diffusers-upsampler", LARGE_UPSAMPLER, 2 * 691_579_523, 816)


def test_config_of_another_model_is_refused():
    published = export_state("diffusers-upsampler", UPSAMPLER, state_of(UPSAMPLER))
    with pytest.raises(ConvertError, match="norm_eps: 1e-06"):
        import_state(published, {"super_res_last": {"norm_eps": 1e-6}})
