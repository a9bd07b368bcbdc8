import json

import pytest

from dalle_cli.text import tokenizers


@pytest.fixture(scope="module")
def published(parity):
    return tokenizers.build({"type": "clip", "path": str(parity / "bpe_simple_vocab_16e6.txt.gz")})


@pytest.fixture(scope="module")
def cases(parity):
    return json.loads((parity / "clip.json").read_text(encoding="utf-8"))


def test_text_is_encoded_as_published(published, cases):
    assert len(cases["encode"]) > 50
    for case in cases["encode"]:
        assert published.encode(case["text"]) == case["ids"], case["text"]


def test_rows_are_packed_as_published(published, cases):
    assert len(cases["padded77"]) > 50
    for case in cases["padded77"]:
        assert published.pack([case["text"]], 77)[0][0].tolist() == case["truncated"], case["text"]
        if case["padded"] is not None:
            assert published.pack([case["text"]], 77, truncate=False)[0][0].tolist() == case["padded"], case["text"]


def test_the_published_vocabulary_is_recognised(published, cases):
    assert published.published
    assert published.vocab_size == 49408
    assert (published.start, published.end) == ((cases["start"],), (cases["end"],))
    assert not type(published)(merges=published.merges[:-1]).published


def test_a_cut_row_keeps_the_end_token(published):
    words = published.encode("hello " * 100)
    ids, mask = published.pack(["hello " * 100], 77)
    assert ids[0].tolist() == [49406, *words[:75], 49407]
    assert mask.all()
    fits, _ = published.pack(["hello " * 75], 77, truncate=False)
    assert fits.tolist() == ids.tolist()


def test_it_can_have_merges_of_any_number(learned):
    tokenizer = learned["clip"]
    assert tokenizer.vocab_size == 512 + len(tokenizer.merges) + 2 == 574
    ids, mask = tokenizer.pack(["cat"], 8)
    assert ids[0, 0] == 572
    assert ids[0, mask[0].sum() - 1] == 573 == ids.max()  # the end is the largest id, which CLIP's text tower looks for
    assert set(ids[0, mask[0].sum() :].tolist()) == {0}
    assert not tokenizer.published


def test_decoding_gives_the_words_without_the_special_tokens(published):
    ids, mask = published.pack(["A Café  &amp; an avocado chair!"], 77)
    assert published.decode(ids[0][mask[0]]) == "a café & an avocado chair !"
