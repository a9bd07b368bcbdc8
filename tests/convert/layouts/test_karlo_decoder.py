import pytest

from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.recognition import export_state
from tests.convert.miniatures import DECODER, LARGE_DECODER, assert_size, round_trip, shapes_of, state_of

DECODER = DECODER | {"conditions": DECODER["conditions"] | {"text": DECODER["conditions"]["text"] | {"text_width": 20}}}


def test_round_trip():
    round_trip("karlo-decoder", DECODER)


def test_keys_are_the_published_ones():
    shapes = shapes_of("karlo-decoder", DECODER)
    assert shapes["model.cf_param"] == (24,)
    assert shapes["model.clip_tok_proj.weight"] == (64, 24)
    assert shapes["model.text_seq_proj.1.weight"] == (16,)
    assert shapes["model.middle_block.1.encoder_kv.weight"] == (256, 16, 1)


def test_published_size():
    assert_size("karlo-decoder", LARGE_DECODER, 893_318_086, 595)


def test_other_conditions_are_refused():
    decoder = DECODER | {"conditions": {"label": {"type": "label-condition", "classes": 3}}}
    with pytest.raises(ConvertError, match="this layout cannot hold a condition of type 'label-condition'"):
        export_state("karlo-decoder", decoder, state_of(decoder))
    for changes, message in (
        ({"depth": 1}, "depth is 1, would be read as 0"),
        ({"vocab_size": 9}, "vocab_size is 9, would"),
    ):
        text = DECODER["conditions"]["text"] | changes
        decoder = DECODER | {"conditions": DECODER["conditions"] | {"text": text}}
        with pytest.raises(ConvertError, match=rf"conditions\.text\.{message}"):
            export_state("karlo-decoder", decoder, state_of(decoder))
