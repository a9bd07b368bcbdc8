"""Learning a vocabulary from captions: the most frequent adjacent pair becomes a symbol, repeatedly.

Sennrich et al. 2016. Counts are updated, not recomputed: a merge touches only the words that an index lists for its
pair, and the next best pair comes from a heap whose outdated entries are corrected when they reach the top.
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
    """Return a tokenizer of this kind with a vocabulary learned from captions; their order does not matter.

    vocab_size: entries, including bytes and special tokens; the result has fewer if no pair occurs twice any more.
    progress: called about a hundred times with the number of merges learned and wanted.
    Raises TextError if vocab_size is less than the bytes and special tokens.
    """
    part = tokenizers.get(kind)
    minimum = smallest(kind)
    if vocab_size < minimum:
        raise TextError(f"vocab_size {vocab_size}: '{kind}' needs at least {minimum}, the bytes and special tokens")
    words: Counter[str] = Counter()
    for caption in captions:
        words.update(part.split(caption))
    for special in part.specials:
        del words[special]
    return part(merges=learn_merges(words, vocab_size - minimum, part.suffix, progress))


def smallest(kind: str) -> int:
    """Return the size of a vocabulary of this kind without merges: the bytes and special tokens."""
    part = tokenizers.get(kind)
    return len(base_symbols(part.suffix)) + len(part.specials)


def learn_merges(
    words: Counter[str], count: int, suffix: str, progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Return up to `count` merges, `left right`, from words and the frequency of each.

    Of equally frequent pairs the one of earlier symbols is chosen, so that the result depends on the counts only.
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
        if -frequency != counts[pair]:  # later merges have taken some of its occurrences
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
    """Replace `pair` by `symbol` in all words and update the counts; return the new pairs."""
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
