import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalle_cli.text import TextError
from dalle_cli.text.bpe import END_OF_WORD, BytePairs, base_symbols, byte_ids
from dalle_cli.text.learn import learn_merges

MERGES = learn_merges(Counter({"abab": 9, "aab": 7, "bcabc": 6, "ccc": 5, "aaaa": 4, "é": 3}), 40, "")
MARKED = learn_merges(Counter({"abab": 9, "aab": 7, "bcabc": 6, "ccc": 5, "aaaa": 4, "é": 3}), 40, END_OF_WORD)


def naive(word: str, pairs: BytePairs) -> list[int]:
    """The definition: find the pair of the lowest rank, merge it wherever it stands from left to right, repeat."""
    ids = byte_ids(word, pairs.suffix)
    while True:
        ranks = [pairs.merges[pair] for pair in pairwise(ids) if pair in pairs.merges]
        if not ranks:
            return ids
        merged: list[int] = []
        for symbol in ids:
            if merged and pairs.merges.get((merged[-1], symbol)) == min(ranks):
                merged[-1] = min(ranks)
            else:
                merged.append(symbol)
        ids = merged


def naive_dropout(word: str, pairs: BytePairs, dropout: float, generator: random.Random) -> list[int]:
    """Provilkov et al. 2020, algorithm 1, as printed."""
    ids = byte_ids(word, pairs.suffix)
    while True:
        possible = [
            (pairs.merges[pair], i)
            for i, pair in enumerate(pairwise(ids))
            if pair in pairs.merges and generator.random() >= dropout
        ]
        if not possible:
            return ids
        merged, i = min(possible)
        ids[i : i + 2] = [merged]


def test_byte_symbols_are_in_the_published_order():
    symbols = base_symbols("")
    assert len(set(symbols)) == 256
    assert symbols[:3] == ["!", '"', "#"]
    assert symbols[93:95] == ["~", "¡"]
    assert symbols[188:190] == ["Ā", "ā"]
    assert base_symbols(END_OF_WORD)[256] == "!</w>"
    assert byte_ids("!\0~", "") == [0, 188, 93]
    assert byte_ids("!!", END_OF_WORD) == [0, 256]


@pytest.mark.parametrize(("merges", "suffix"), [(MERGES, ""), (MARKED, END_OF_WORD)])
@given(word=st.text(alphabet="abcé", min_size=1, max_size=40))
@settings(deadline=None)
def test_equals_the_definition(merges, suffix, word):
    pairs = BytePairs(merges, suffix)
    assert pairs.encode([word]) == naive(word, pairs)


@given(word=st.text(min_size=1, max_size=20).filter(lambda word: not any("\ud800" <= c <= "\udfff" for c in word)))
@settings(deadline=None)
def test_decodes_to_what_was_encoded(word):
    pairs = BytePairs(MERGES, "")
    assert pairs.decode(pairs.encode([word])) == word
    marked = BytePairs(MARKED, END_OF_WORD)
    assert marked.decode(marked.encode([word, word])) == f"{word} {word} "


def test_dropout_spells_as_the_algorithm_of_the_paper_does():
    pairs = BytePairs(MERGES, "")
    ours, theirs = random.Random(1), random.Random(2)
    word, draws, dropout = "abcabc", 4000, 0.3
    counts = Counter(tuple(pairs.encode([word], dropout, ours)) for _ in range(draws))
    expected = Counter(tuple(naive_dropout(word, pairs, dropout, theirs)) for _ in range(draws))
    assert len(expected) > 5
    for spelling in counts | expected:
        assert counts[spelling] == pytest.approx(expected[spelling], abs=0.035 * draws)


def test_dropout_repeats_with_its_seed_and_leaves_no_trace():
    pairs = BytePairs(MERGES, "")
    words = ["abcabc", "aaaa", "ccc"] * 10
    plain = pairs.encode(words)
    first = pairs.encode(words, 0.5, np.random.default_rng(3))
    assert first == pairs.encode(words, 0.5, np.random.default_rng(3))
    assert first != pairs.encode(words, 0.5, np.random.default_rng(4))
    assert pairs.decode(first) == "".join(words)
    assert pairs.encode(words) == plain
    assert pairs.encode(words, 1.0, random.Random(0)) == [i for word in words for i in byte_ids(word, "")]


def test_specials_are_one_token_and_decode_to_nothing():
    pairs = BytePairs(MERGES, "", ["<s>", "</s>"])
    assert pairs.encode(["<s>", "a", "</s>"]) == [256 + len(MERGES), byte_ids("a", "")[0], 257 + len(MERGES)]
    assert pairs.encode(["<s>"], 0.9, random.Random(0)) == [256 + len(MERGES)]
    assert pairs.decode(pairs.encode(["<s>", "a", "</s>"])) == "a"


def test_words_are_forgotten_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr("dalle_cli.text.bpe._CACHED_WORDS", 10)
    pairs = BytePairs(MERGES, "")
    words = [f"word{i}" for i in range(95)]
    assert pairs.decode(pairs.encode(words)) == "".join(words)
    pairs.encode(["b" * 1000])
    assert 0 < len(pairs._cache) <= 10
    assert "b" * 1000 not in pairs._cache


def test_a_long_word_takes_no_quadratic_time():
    pairs = BytePairs(MERGES, "")
    word = "abcc" * 20_000
    assert pairs.decode(pairs.encode([word])) == word  # one merge a pass over the word would take an hour


@pytest.mark.parametrize(
    "line", ["a", "", "a b c", "a  b", "zz q", "a b", 7, None, ["a", "b"], "x" * 10_000], ids=lambda line: str(line)[:8]
)
def test_malformed_merges_are_one_line_errors(line):
    with pytest.raises(TextError, match=r"merge 2 of the vocabulary") as error:
        BytePairs(["a b", line], "")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("unknown", [-1, 256 + len(MERGES), 10**9])
def test_decoding_an_unknown_token_is_an_error(unknown):
    with pytest.raises(TextError, match=str(unknown)):
        BytePairs(MERGES, "").decode([0, unknown])


def test_bytes_that_are_no_text_are_replaced():
    pairs = BytePairs([], "")
    assert pairs.decode(pairs.encode(["é"])[:1]) == "\ufffd"
