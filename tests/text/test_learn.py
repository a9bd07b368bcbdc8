import random
import time
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalle_cli.text import TextError
from dalle_cli.text.bpe import END_OF_WORD, BytePairs, base_symbols
from dalle_cli.text.learn import learn, learn_merges


def naive_merges(words: Counter[str], count: int, suffix: str) -> list[str]:
    """The definition: count all pairs anew for every merge."""
    merges: list[str] = []
    symbols = base_symbols(suffix)
    while len(merges) < count:
        pairs = BytePairs(merges, suffix)
        counts: Counter[tuple[int, int]] = Counter()
        for word, times in words.items():
            for pair in pairwise(pairs.encode([word])):
                counts[pair] += times
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        left, right = symbols[best[0]], symbols[best[1]]
        merges.append(f"{left} {right}")
        symbols.append(left + right)
    return merges


@pytest.mark.parametrize("suffix", ["", END_OF_WORD])
@given(words=st.dictionaries(st.text(alphabet="abé", min_size=1, max_size=8), st.integers(1, 5), max_size=12))
@settings(deadline=None)
def test_equals_the_definition(suffix, words):
    assert learn_merges(Counter(words), 30, suffix) == naive_merges(Counter(words), 30, suffix)


def test_takes_the_most_frequent_pair_first():
    assert learn_merges(Counter({"low": 5, "lower": 2, "newest": 6, "widest": 3}), 4, END_OF_WORD) == [
        "e s",
        "es t</w>",
        "l o",
        "e w",
    ]


def test_the_order_of_captions_does_not_matter(captions):
    shuffled = captions * 3
    random.Random(0).shuffle(shuffled)
    assert learn(iter(shuffled), 700, "dalle").merges == learn(captions * 3, 700, "dalle").merges


@pytest.mark.parametrize(("kind", "smallest"), [("clip", 514), ("glide", 257), ("dalle", 512)])
def test_the_vocabulary_has_the_size_asked_for(captions, kind, smallest):
    for size in (smallest, smallest + 1, smallest + 40):
        assert learn(captions * 2, size, kind).vocab_size == size
    with pytest.raises(TextError, match=f"needs at least {smallest}"):
        learn(captions, smallest - 1, kind)


def test_few_captions_give_a_smaller_vocabulary():
    tokenizer = learn(["cat cat", "dog"], 1000, "dalle")
    assert tokenizer.merges == ["a t</w>", "c at</w>"]  # "dog" occurs once
    assert tokenizer.encode("cat") == [513]
    assert learn([], 1000, "dalle").merges == []


def test_learned_words_are_shorter_than_their_bytes(captions, learned):
    for tokenizer in learned.values():
        tokens = sum(len(tokenizer.encode(caption)) for caption in captions)
        assert tokens < 0.7 * sum(len(caption.encode()) for caption in captions)


def test_special_tokens_in_captions_are_not_learned():
    assert learn(["<|endoftext|> <|startoftext|>"] * 9, 600, "clip").merges == []


def test_progress_counts_up_to_the_end(captions):
    seen: list[tuple[int, int]] = []
    learn(captions * 2, 552, "dalle", lambda done, total: seen.append((done, total)))
    assert seen[-1] == (40, 40)
    assert seen == sorted(set(seen))


def test_thousands_of_merges_take_seconds():
    generator = random.Random(0)
    captions = (" ".join("".join(generator.choices("aeioulnrst", k=5)) for _ in range(10)) for _ in range(2000))
    begun = time.process_time()
    assert learn(captions, 2512, "dalle").vocab_size == 2512
    assert time.process_time() - begun < 20  # counting anew for every merge takes minutes
