import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalle_cli.data.order import Order, combine, permute

layouts = st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(lambda blocks: sum(blocks) > 1)


def visited(order: Order, first: int, count: int) -> list[tuple[int, int]]:
    blocks, indices = order.at(np.arange(first, first + count))
    return list(zip(blocks.tolist(), indices.tolist()))


def everything(blocks: list[int]) -> set[tuple[int, int]]:
    return {(block, index) for block, size in enumerate(blocks) for index in range(size)}


@given(st.integers(1, 3000), st.integers(0, 2**63))
@settings(max_examples=60, deadline=None)
def test_permute_is_a_permutation(count, seed):
    result = permute(np.arange(count), count, combine(seed))
    assert np.sort(result).tolist() == list(range(count))


def test_permute_at_a_billion_is_one_to_one_and_quick():
    index = np.random.default_rng(0).choice(10**9, 5000, replace=False)
    result = permute(index, 10**9, combine(3))
    assert len(set(result.tolist())) == 5000
    assert result.min() >= 0
    assert result.max() < 10**9
    assert abs(result.mean() / 10**9 - 0.5) < 0.02


def test_permutations_of_few_are_fairly_drawn():
    counts: dict[tuple, int] = {}
    for seed in range(3000):
        order = tuple(permute(np.arange(3), 3, combine(seed)).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert max(counts.values()) < 1.4 * min(counts.values())


def test_combine_is_elementwise_and_depends_on_every_part():
    many = combine(7, np.arange(100))
    assert many.dtype == np.uint64
    assert many[5] == combine(7, 5)[0]
    assert len({int(value) for value in many}) == 100
    assert len({int(combine(*parts)[0]) for parts in [(1, 2), (2, 1), (1, 2, 0), (1,), (-1, 2), (1, -2)]}) == 6


@given(layouts, st.integers(0, 2**40), st.integers(1, 8), st.data())
@settings(max_examples=150, deadline=None)
def test_each_training_sample_once_an_epoch_and_never_a_held_out_one(blocks, seed, window, data):
    validation = data.draw(st.integers(0, sum(blocks) - 1))
    order = Order(blocks, seed, validation, window)
    assert order.samples == sum(blocks) - validation
    kept = set(zip(*(places.tolist() for places in order.held_out(np.arange(validation)))))
    assert len(kept) == validation
    epoch = data.draw(st.integers(0, 5))
    once = visited(order, epoch * order.samples, order.samples)
    assert len(set(once)) == len(once)
    assert set(once) == everything(blocks) - kept


@given(layouts, st.integers(0, 99), st.data())
@settings(max_examples=60, deadline=None)
def test_any_stretch_is_part_of_one_sequence(blocks, seed, data):
    order = Order(blocks, seed, window=3)
    whole = visited(order, 0, 3 * order.samples)
    first = data.draw(st.integers(0, 2 * order.samples))
    count = data.draw(st.integers(1, order.samples))
    assert visited(Order(blocks, seed, window=3), first, count) == whole[first : first + count]


def test_held_out_samples_depend_on_the_counts_alone():
    places = [Order([50, 60], seed, 7).held_out(np.arange(7)) for seed in (1, 2)]
    assert np.array_equal(places[0], places[1])


def test_orders_differ_by_epoch_and_seed():
    order = Order([100, 100], seed=1)
    first, second = visited(order, 0, 200), visited(order, 200, 200)
    assert first != second
    assert first != sorted(first)
    assert visited(Order([100, 100], seed=2), 0, 200) != first


def test_samples_of_a_window_are_mixed_and_windows_kept_apart():
    order = Order([1000] * 12, seed=5, window=4)
    blocks = np.array([block for block, _ in visited(order, 0, 12_000)])
    windows = [set(blocks[start : start + 4000]) for start in (0, 4000, 8000)]
    assert [len(window) for window in windows] == [4, 4, 4]
    assert set.union(*windows) == set(range(12))
    early = [int((blocks[:1000] == block).sum()) for block in windows[0]]
    assert min(early) > 150  # of 250 expected
    again = {frozenset(order.at(np.arange(start, start + 4000))[0].tolist()) for start in (12_000, 16_000, 20_000)}
    assert again != {frozenset(window) for window in windows}  # other shards meet in the next epoch


def test_validation_opens_few_blocks():
    blocks, _ = Order([10_000] * 1000, validation=256).held_out(np.arange(256))
    assert len(set(blocks.tolist())) == 16
    blocks, _ = Order([10] * 1000, validation=256).held_out(np.arange(256))
    assert 52 <= len(set(blocks.tolist())) <= 128  # these are too small for sixteen to do


@pytest.mark.parametrize("blocks", [[1], [0, 0, 1, 0], [2, 0, 0]])
def test_tiny_sets(blocks):
    order = Order(blocks, seed=9)
    assert set(visited(order, 0, order.samples)) == everything(blocks)
    assert set(visited(order, 5 * order.samples, 100)) == everything(blocks)


def test_a_billion_samples_cost_no_memory():
    order = Order([10**9], seed=1, validation=1000)
    blocks, indices = order.at(np.arange(10**12, 10**12 + 4096))
    assert len(set(indices.tolist())) == 4096
    assert indices.max() < 10**9
    assert not blocks.any()
