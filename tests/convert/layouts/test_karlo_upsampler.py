import pytest

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.recognition import export_state, import_state
from tests.convert.miniatures import HALF, LARGE_UPSAMPLER, UPSAMPLER, assert_size, round_trip, shapes_of, state_of


def test_round_trip():
    round_trip("karlo-upsampler", UPSAMPLER)


def test_keys_are_the_published_ones():
    shapes = shapes_of("karlo-upsampler", UPSAMPLER)
    assert shapes["model_first_steps.input_blocks.0.0.weight"] == (64, 6, 3, 3)
    assert shapes["model_last_step.middle_block.1.in_layers.0.weight"] == (128,)


def test_published_size():
    assert_size("karlo-upsampler", LARGE_UPSAMPLER, 2 * 691_579_523, 2 * 408)


def test_missing_half_is_refused():
    published = export_state("karlo-upsampler", UPSAMPLER, state_of(UPSAMPLER))
    half = {key: tensor for key, tensor in published.items() if key.startswith("model_first_steps.")}
    with pytest.raises(ConvertError, match="is missing; the file is incomplete"):
        import_state(half)


def test_other_conditions_are_refused():
    label = {"label": {"type": "label-condition", "classes": 3}}
    with pytest.raises(ConvertError, match="this layout cannot hold a condition of type 'label-condition'"):
        export_state("karlo-upsampler", UPSAMPLER | {"last": HALF | {"conditions": label}}, {})
