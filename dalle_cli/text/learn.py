"""Learning a vocabulary from captions: the most frequent adjacent pair becomes a symbol, again and again.

Sennrich et al. 2016. Counts are kept up to date rather than taken anew: a merge touches only the words that an index
names for its pair, and the next best pair comes from a heap whose outdated entries are corrected when they surface.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import pairwise

from . import TextError, tokenizers
from .bpe import base_symbols, byte_ids
from .tokenizer import Tokenizer

Pair = tuple[int, int]


def learn(
    captions: Iterable[str],
    vocab_size: int,
    kind: str = "clip",
    progress: Callable[[int, int], None] | None = None,
) -> Tokenizer:
    """A tokenizer of this kind whose vocabulary is learned from captions; their order does not matter.

    vocab_size: entries, bytes and special tokens included; fewer come out where no pair occurs twice any more.
    progress: called with the number of merges learned and wanted, a hundred times or so.
    Raises TextError when vocab_size has no room for the bytes and special tokens.
    """
    part = tokenizers.get(kind)
    least = smallest(kind)
    if vocab_size < least:
        raise TextError(f"vocab_size {vocab_size}: '{kind}' needs {least} for the bytes and special tokens alone")
    words: Counter[str] = Counter()
    for caption in captions:
        words.update(part.split(caption))
    for special in part.specials:
        del words[special]
    return part(merges=learn_merges(words, vocab_size - least, part.suffix, progress))


def smallest(kind: str) -> int:
    """Entries of a vocabulary of this kind that has learned nothing: the bytes and special tokens."""
    part = tokenizers.get(kind)
    return len(base_symbols(part.suffix)) + len(part.specials)


def learn_merges(
    words: Counter[str], count: int, suffix: str, progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Up to `count` merges, one `left right` a line, from words and how often each occurs.

    Of equally frequent pairs, the one of the earlier symbols is taken, so that the result depends on the counts alone.
    """
    symbols = base_symbols(suffix)
    spelled = [byte_ids(word, suffix) for word in words]
    times = list(words.values())
    counts: dict[Pair, int] = defaultdict(int)
    where: dict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(spelled):
        for pair in pairwise(word):
            counts[pair] += times[index]
            where[pair].add(index)
    queue = [(-frequency, pair) for pair, frequency in counts.items()]
    heapify(queue)
    merges: list[str] = []
    while queue and len(merges) < count:
        frequency, pair = heappop(queue)
        if -frequency != counts[pair]:  # merges since have taken some of its occurrences
            heappush(queue, (-counts[pair], pair))
            continue
        if -frequency < 2:
            break
        left, right = (symbols[symbol] for symbol in pair)
        merges.append(f"{left} {right}")
        symbols.append(left + right)
        for changed in _merge(pair, len(symbols) - 1, spelled, times, counts, where):
            heappush(queue, (-counts[changed], changed))
        if progress and (len(merges) % max(1, count // 100) == 0 or len(merges) == count):
            progress(len(merges), count)
    return merges


def _merge(
    pair: Pair,
    symbol: int,
    spelled: list[list[int]],
    times: list[int],
    counts: dict[Pair, int],
    where: dict[Pair, set[int]],
) -> set[Pair]:
    """Put `symbol` for `pair` in all words and bring the counts up to date; returns the pairs that are new."""
    new: set[Pair] = set()
    for index in where.pop(pair):
        word = spelled[index]
        for old in pairwise(word):
            counts[old] -= times[index]
        merged: list[int] = []
        for right in word:
            if merged and (merged[-1], right) == pair:
                merged[-1] = symbol
            else:
                merged.append(right)
        spelled[index] = merged
        for now in pairwise(merged):
            counts[now] += times[index]
            if symbol in now:
                new.add(now)
                where[now].add(index)
    return new
