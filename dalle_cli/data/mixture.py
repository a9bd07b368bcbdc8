"""Several sources in fixed proportions."""

from collections.abc import Sequence

import numpy as np

from . import sources
from .order import Integers, combine, permute
from .source import DataError, Source

ROUND = 1000  # positions in which every source has its exact number of samples


class Mixture:
    """Sources mixed by weight, exactly in every thousand samples; each source has epochs of its own.

    sources: nodes, as `data` would be with one of them, without the keys that the mixture itself says (size, crop,
    ...). weights: one for each, in any unit. samples: the length of an epoch; default, of all sources together.
    """

    def __init__(self, sources: list[Source], weights: list[float], samples: int | None = None):
        if len(sources) != len(weights) or not sources:
            raise DataError(f"data.weights: {len(weights)} weights for {len(sources)} sources")
        if not all(ROUND * weight >= sum(weights) > 0 for weight in weights):
            raise DataError(f"data.weights: {list(weights)}: each must be positive, at least a {ROUND}th of their sum")
        self.sources = sources
        self.counts = apportion(weights, ROUND)
        self.samples = samples


sources.register("mixture")(Mixture)


def apportion(weights: Sequence[float], total: int) -> list[int]:
    """Return `total` divided in proportion to the weights, by the largest remainder; the parts sum to it exactly."""
    exact = np.array(weights, np.float64) / max(sum(weights), 1e-300) * total
    whole = np.floor(exact).astype(np.int64)
    extra = np.argsort(whole - exact, kind="stable")[: total - int(whole.sum())]
    whole[extra] += 1
    return whole.tolist()


def assign(positions: Integers, counts: Sequence[int], seed: int) -> tuple[Integers, Integers]:
    """Return (source, position within the sequence of that source) of positions of the mixture."""
    if len(counts) == 1:
        return np.zeros_like(positions), positions
    sizes = np.array(counts, np.int64)
    total, ends = sum(counts), np.cumsum(sizes)
    rounds, slots = np.divmod(positions, total)
    for number in np.unique(rounds):
        chosen = rounds == number
        slots[chosen] = permute(slots[chosen], total, combine(seed, int(number)))
    which = np.searchsorted(ends, slots, side="right")
    return which, rounds * sizes[which] + slots - (ends - sizes)[which]
