import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dalle_cli.nn.token_sampling import sample_token


def slow(scores, chance, temperature=1.0, top_k=None, top_p=None):
    """One choice, by the words of `choose`, over a sorted list of tokens."""
    probabilities = (scores.double() / temperature).softmax(0).tolist()
    if top_k is None and top_p in (None, 1.0):  # not sorted
        kept = list(enumerate(probabilities))
    else:
        kept = sorted(enumerate(probabilities), key=lambda pair: -pair[1])[: top_k or None]
        total = sum(p for _, p in kept)
        fewest, reached = [], 0.0
        for token, p in kept:
            fewest.append((token, p))
            reached += p / total
            if top_p is not None and reached >= top_p:
                break
        kept = fewest
    left = chance * sum(p for _, p in kept)
    for token, p in kept:
        left -= p
        if left < 0:
            return token
    return kept[-1][0]


SCORES = st.lists(st.integers(-40, 40), min_size=1, max_size=12, unique=True)


@settings(deadline=None)
@given(
    SCORES,
    st.integers(0, 996),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([None, 1, 3, 100]),
    st.sampled_from([None, 0.1, 0.501, 0.9, 1.0]),
)
def test_equals_slow_loop(scores, chance, temperature, top_k, top_p):
    scores, chance = torch.tensor(scores) / 10, (chance + 0.417) / 997  # clear of the borders between tokens
    fast = sample_token(scores, torch.tensor(chance), temperature, top_k, top_p)
    assert int(fast) == slow(scores, chance, temperature, top_k, top_p)


def test_frequencies_are_probabilities():
    probabilities = torch.tensor([0.5, 0.0, 0.125, 0.375])
    chances = torch.arange(0, 1, 1 / 64)
    tokens = sample_token(probabilities.log().expand(64, -1), chances)
    assert tokens.tolist() == [0] * 32 + [2] * 8 + [3] * 24


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 2}, {3, 1}),
        ({"top_p": 0.79}, {3, 1}),
        ({"top_p": 0.81}, {3, 1, 0}),
        ({"top_k": 3, "top_p": 0.5}, {3}),
        ({"top_p": 1e-9}, {3}),
        ({"top_k": 1}, {3}),
        ({"temperature": 0}, {3}),
        ({"temperature": 1e-6}, {3}),
    ],
)
def test_only_the_likeliest_are_chosen(options, allowed):
    scores = torch.tensor([0.15, 0.3, 0.05, 0.5]).log().expand(1000, -1)
    tokens = sample_token(scores, torch.linspace(0, 1 - 1e-6, 1000), **options)
    assert set(tokens.tolist()) == allowed


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.9}])
@pytest.mark.parametrize("chance", [0.0, 1 - 2**-24])
def test_impossible_tokens_are_never_sampled(options, chance):
    scores = torch.tensor([-torch.inf, 1.0, 2.0, 0.5, -torch.inf]).expand(7, -1)
    assert set(sample_token(scores, torch.full((7,), chance), **options).tolist()) <= {1, 2, 3}


def test_any_shape_and_precision_of_scores():
    scores = torch.randn(3, 4, 9, dtype=torch.bfloat16)
    tokens = sample_token(scores, torch.rand(3, 4))
    assert tokens.shape == (3, 4)
    assert tokens.dtype == torch.int64
    assert tokens.min() >= 0
    assert tokens.max() < 9
    assert torch.equal(sample_token(scores, torch.rand(3, 4), temperature=0), scores.argmax(-1))
