"""Byte-pair encoding over UTF-8 bytes, in the formats of GPT-2 and CLIP.

A vocabulary is a list of merges, one `left right` per line, in the order in which they are applied. The list determines
all ids: 256 byte symbols; for CLIP the same 256 again, marked as the end of a word; one id per merge; the special
tokens. So the id of a merge gives its rank, and only the list needs to be stored. The encoding is our own because it
has to learn vocabularies and to apply BPE dropout with an explicit generator, which no tokenizer library offers.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Protocol

from . import TextError

END_OF_WORD = "</w>"

# Published files write a byte as one visible character: itself if it is printable in Latin-1, else U+0100 onwards.
_VISIBLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_HIDDEN = sorted(set(range(256)) - set(_VISIBLE))
_BYTES = bytes(_VISIBLE + _HIDDEN)  # the byte of each of the first 256 ids
_CHARACTERS = [chr(byte) for byte in _VISIBLE] + [chr(256 + i) for i in range(len(_HIDDEN))]
_BYTE_TO_ID = bytes(_BYTES.index(byte) for byte in range(256))  # a table for bytes.translate

_CACHED_WORDS = 1 << 17
_CACHED_LENGTH = 64


class Random(Protocol):
    """A generator for dropout: random.Random and numpy's Generator both fit."""

    def random(self) -> float: ...


def base_symbols(suffix: str) -> list[str]:
    """Return the symbols before any merge, in id order: 256 bytes, and again with `suffix` if there is one."""
    return _CHARACTERS + [character + suffix for character in _CHARACTERS if suffix]


def byte_ids(word: str, suffix: str) -> list[int]:
    """Return the ids of a word before any merge: one per UTF-8 byte; with a suffix, the last is marked as the end."""
    ids = list(word.encode().translate(_BYTE_TO_ID))
    if suffix:
        ids[-1] += 256
    return ids


class BytePairs:
    """Conversion of words to ids and back.

    merges: lines `left right`. suffix: END_OF_WORD if the last symbol of a word is marked, else "". specials: words
    that are one token and never split; they have the last ids. Raises TextError for a line that does not make a new
    symbol from two known ones.
    """

    def __init__(self, merges: Iterable[str], suffix: str, specials: Iterable[str] = ()):
        self.suffix = suffix
        ids = {symbol: i for i, symbol in enumerate(base_symbols(suffix))}
        self.tokens = [bytes([byte]) for byte in _BYTES]
        self.tokens += [token + b" " for token in self.tokens if suffix]
        self.merges: dict[tuple[int, int], int] = {}
        for number, line in enumerate(merges, 1):
            left, _, right = line.partition(" ") if isinstance(line, str) else ("", "", "")
            if left not in ids or right not in ids or left + right in ids:
                raise TextError(
                    f"merge {number} of the vocabulary, {str(line)[:60]!r}, does not make a new symbol from two "
                    "earlier ones: the file is damaged, or of another kind of tokenizer"
                )
            pair = ids[left], ids[right]
            self.merges[pair] = ids[left + right] = len(self.tokens)
            self.tokens.append(self.tokens[pair[0]] + self.tokens[pair[1]])
        self.specials = {special: len(self.tokens) + i for i, special in enumerate(specials)}
        self.tokens += [b""] * len(self.specials)
        self._cache: dict[str, tuple[int, ...]] = {}

    def encode(self, words: Iterable[str], dropout: float = 0.0, random: Random | None = None) -> list[int]:
        """Return the ids of words, in order.

        dropout: probability of skipping a possible merge, at every step; a word is done once all of its merges are
        skipped in one step (Provilkov et al. 2020, algorithm 1). Uses `random` and no cache.
        """
        ids: list[int] = []
        if dropout:
            assert random is not None, "dropout needs an explicit generator"
            for word in words:
                ids += self._encode_word(word, dropout, random)
            return ids
        for word in words:
            known = self._cache.get(word)
            if known is None:
                known = self._encode_word(word)
                if len(self._cache) >= _CACHED_WORDS:  # endless captions bring endless new words
                    self._cache.clear()
                if len(word) <= _CACHED_LENGTH:
                    self._cache[word] = known
            ids += known
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids: special tokens give nothing, invalid UTF-8 gives U+FFFD.

        Raises TextError for unknown ids.
        """
        ids = [int(i) for i in ids]
        unknown = next((i for i in ids if not 0 <= i < len(self.tokens)), None)
        if unknown is not None:
            raise TextError(f"token {unknown} is not in this vocabulary of {len(self.tokens)}")
        return b"".join([self.tokens[i] for i in ids]).decode(errors="replace")

    def _encode_word(self, word: str, dropout: float = 0.0, random: Random | None = None) -> tuple[int, ...]:
        if word in self.specials:
            return (self.specials[word],)
        return self._merge(byte_ids(word, self.suffix), dropout, random)

    def _merge(self, symbols: list[int], dropout: float, random: Random | None) -> tuple[int, ...]:
        """Merge the pair of the lowest rank, the leftmost first, until none is left; O(n log n) in the length.

        A pair that a merge creates has a higher rank than the merge, because the symbols of a merge come before it. So
        all occurrences of a pair are merged before anything new, as in the published encoders.
        """
        merges, length = self.merges, len(symbols)
        before, after = list(range(-1, length - 1)), list(range(1, length + 1))  # nearest positions not merged away
        queue = [(merges[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in merges]
        heapify(queue)
        skipped: list[tuple[int, int]] = []
        while queue:
            entry = heappop(queue)
            merged, left = entry
            right = after[left]
            if right == length or merges.get((symbols[left], symbols[right])) != merged:
                continue  # a neighbor has been merged since this pair was queued
            if random is not None and random.random() < dropout:
                skipped.append(entry)
                continue
            symbols[left], symbols[right], after[left] = merged, -1, after[right]
            if after[left] < length:
                before[after[left]] = left
                rank = merges.get((merged, symbols[after[left]]))
                if rank is not None:
                    heappush(queue, (rank, left))
            if before[left] >= 0:
                rank = merges.get((symbols[before[left]], merged))
                if rank is not None:
                    heappush(queue, (rank, before[left]))
            while skipped:  # a new step: skipped merges get another chance
                heappush(queue, skipped.pop())
        return tuple(symbol for symbol in symbols if symbol >= 0)
