"""The order in which samples are visited: computed from (seed, epoch, position), never stored.

Positions are endless; position p belongs to epoch p // n. Each of the n training samples occurs exactly once in every
epoch. Blocks (shards, row groups) are permuted and taken in windows of a few, so that reading stays local, and
the samples of a window are permuted together. A permutation is a small Feistel cipher with cycle walking (Black and
Rogaway 2002): any position is computed directly, so a run resumes from one number and skipping costs nothing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]

ROUNDS = 6
MIXED = 65_536  # minimum number of samples in a window, unless it takes more than 32 blocks


def combine(*parts: int | NDArray) -> Hashes:
    """Return the 64-bit hash of integers, elementwise over arrays (SplitMix64 of Steele et al. 2014, chained)."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        word = np.uint64(part & 0xFFFFFFFFFFFFFFFF) if isinstance(part, int) else part.astype(np.uint64)
        state = (state ^ word) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def permute(index: Integers, count: int, key: Hashes) -> Integers:
    """Return where each index of 0..count-1 goes in the permutation of `key` (shape (1,))."""
    bits = max(2, (count - 1).bit_length())
    low = np.uint64(bits // 2)
    left_mask, right_mask = np.uint64((1 << (bits - bits // 2)) - 1), np.uint64((1 << (bits // 2)) - 1)
    keys = [combine(key, number) for number in range(ROUNDS)]

    def encipher(values: Hashes) -> Hashes:
        left, right = values >> low, values & right_mask
        for even, odd in zip(keys[::2], keys[1::2]):
            left = left ^ (combine(right, even) & left_mask)
            right = right ^ (combine(left, odd) & right_mask)
        return (left << low) | right

    result = encipher(index.astype(np.uint64))
    while (outside := result >= np.uint64(count)).any():
        result[outside] = encipher(result[outside])
    return result.astype(np.int64)


class Order:
    """Positions of one source's training samples, and the list of its held-out ones.

    blocks: sample counts. validation: how many samples are held out, by a rule that depends only on the counts.
    window: blocks that are mixed; default, enough for 65,536 samples, between 4 and 32.
    """

    def __init__(self, blocks: Sequence[int], seed: int = 0, validation: int = 0, window: int | None = None):
        sizes = np.asarray(blocks, np.int64)
        total = int(sizes.sum())
        assert 0 <= validation < total, "the caller limits what is held out"
        self.seed = seed
        self.samples = total - validation
        self.window = window or int(np.clip(-(-MIXED * len(sizes) // total), 4, 32))
        self._starts = _starts(sizes)
        self._held_out = _spread(sizes, self._starts, validation)
        # Numbering only the training samples: the i-th held-out sample comes after `_before[i]` training samples.
        self._before = self._held_out - np.arange(validation)
        self._train_starts = self._starts - np.searchsorted(self._held_out, self._starts)
        self._epoch: tuple[int, Integers, Integers] = (-1, sizes, sizes)

    def at(self, positions: Integers) -> tuple[Integers, Integers]:
        """Return (block, index within it) of training positions."""
        numbers = np.empty_like(positions)
        epochs, offsets = np.divmod(positions, self.samples)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            numbers[chosen] = self._shuffled(int(epoch), offsets[chosen])
        return self._locate(numbers + np.searchsorted(self._before, numbers, side="right"))

    def held_out(self, positions: Integers) -> tuple[Integers, Integers]:
        """Return (block, index within it) of validation samples 0..validation-1."""
        return self._locate(self._held_out[positions])

    def _shuffled(self, epoch: int, offsets: Integers) -> Integers:
        """Return the numbers, among the training samples, of those visited at `offsets` of an epoch."""
        if self._epoch[0] != epoch:
            count = len(self._starts) - 1
            visit = permute(np.arange(count), count, combine(self.seed, epoch))
            self._epoch = (epoch, visit, _starts(np.diff(self._train_starts)[visit]))
        _, visit, starts = self._epoch
        bounds = np.append(starts[:-1][:: self.window], starts[-1])
        windows = np.searchsorted(bounds, offsets, side="right") - 1
        shuffled = np.empty_like(offsets)
        for window in np.unique(windows):
            chosen = windows == window
            low, high = int(bounds[window]), int(bounds[window + 1])
            key = combine(self.seed, epoch, int(window) + 1)
            shuffled[chosen] = permute(offsets[chosen] - low, high - low, key) + low
        slots = np.searchsorted(starts, shuffled, side="right") - 1
        return shuffled - starts[slots] + self._train_starts[visit[slots]]

    def _locate(self, samples: Integers) -> tuple[Integers, Integers]:
        blocks = np.searchsorted(self._starts, samples, side="right") - 1
        return blocks, samples - self._starts[blocks]


def _starts(sizes: Integers) -> Integers:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _spread(sizes: Integers, starts: Integers, count: int) -> Integers:
    """Return `count` samples, evenly spaced in 16 evenly spaced blocks, in more blocks only if these are small.

    If they were spread over all blocks, a validation would have to open every shard.
    """
    chosen = min(16, len(sizes))
    while True:
        blocks = np.arange(chosen) * len(sizes) // chosen
        inner = _starts(sizes[blocks])
        if chosen == len(sizes) or inner[-1] >= 2 * count:
            break
        chosen = min(2 * chosen, len(sizes))
    picked = np.arange(count) * inner[-1] // max(count, 1)
    slots = np.searchsorted(inner, picked, side="right") - 1
    return starts[blocks[slots]] + picked - inner[slots]
