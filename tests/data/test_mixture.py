import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalle_cli.data.mixture import Mixture, apportion, assign
from dalle_cli.data.scenes import Scenes
from dalle_cli.data.source import DataError

weight_lists = st.lists(st.floats(0.05, 10), min_size=1, max_size=6)


@given(weight_lists, st.integers(0, 5000))
def test_shares_sum_exactly_and_are_nearest(weights, total):
    result = apportion(weights, total)
    assert sum(result) == total
    for share, weight in zip(result, weights):
        assert abs(share - weight / sum(weights) * total) < 1


@given(weight_lists, st.integers(0, 2**40), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_every_thousand_has_exact_shares_and_every_source_counts_on(weights, seed, first):
    quota = apportion(weights, 1000)
    which, own = assign(np.arange(1000 * first, 1000 * (first + 2)), quota, seed)
    for part in range(2):
        assert np.bincount(which[1000 * part :][:1000], minlength=len(quota)).tolist() == quota
    for source, share in enumerate(quota):
        assert sorted(own[which == source].tolist()) == list(range(share * first, share * (first + 2)))


def test_sources_are_interleaved():
    which, _ = assign(np.arange(1000), [500, 500], seed=1)
    assert 200 < int((which[:500] == 0).sum()) < 300
    again, _ = assign(np.arange(1000, 2000), [500, 500], seed=1)
    assert which.tolist() != again.tolist()


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, 0.0001], [1.0, 1.0, 1.0]])
def test_weights_that_make_no_sense(weights):
    with pytest.raises(DataError, match=r"data\.weights"):
        Mixture([Scenes(16), Scenes(16)], weights)
