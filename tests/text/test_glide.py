import json

import pytest

from dalle_cli.text import tokenizers


@pytest.fixture(scope="module")
def published(parity):
    return tokenizers.build({"type": "glide", "path": str(parity / "vocab.bpe.gz")})


def test_text_is_encoded_and_packed_as_published(published, parity):
    data = json.loads((parity / "glide.json").read_text(encoding="utf-8"))
    assert (published.vocab_size, published.pad) == (data["n_vocab"], data["end_token"])
    assert len(data["cases"]) > 50
    for case in data["cases"]:
        assert published.encode(case["text"]) == case["ids"], case["text"]
        ids, mask = published.pack([case["text"]], 128)
        assert ids[0].tolist() == case["padded"], case["text"]
        assert mask[0].tolist() == case["mask"], case["text"]


def test_the_published_vocabulary_is_recognised(published, learned):
    assert published.published
    assert not learned["glide"].published


def test_an_empty_caption_is_all_padding(published):
    ids, mask = published.pack([""], 128)
    assert set(ids[0].tolist()) == {50256}
    assert not mask.any()


def test_a_long_caption_is_cut_without_an_end_token(published):
    ids, mask = published.pack(["an oil painting of a corgi " * 40], 128)
    assert ids[0].tolist() == published.encode("an oil painting of a corgi " * 40)[:128]
    assert mask.all()


def test_case_is_lost_and_spacing_kept(learned):
    tokenizer = learned["glide"]
    assert tokenizer.decode(tokenizer.encode("A  Red\tAPPLE,  Café")) == "a  red\tapple,  café"
