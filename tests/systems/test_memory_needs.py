import pytest

from dalle_cli.systems.memory_needs import MemoryNeeds, max_batch

MAX_IMAGES = 128
NEEDS = MemoryNeeds(fixed=1000, per_prompt=100, per_candidate=10, finished_image=1)


@pytest.mark.parametrize(
    ("prompts", "candidates", "budget", "batch"),
    [
        (1, 4, 10_000, (1, 4)),
        (10, 4, 1 << 30, (10, 4)),
        (1000, 4, 1 << 30, (MAX_IMAGES // 4, 4)),
        (10, 4, 1000 + 3 * (100 + 4 * 10 + 2 * 4), (3, 4)),
        (10, 4, 1000 + 3 * (100 + 4 * 10 + 2 * 4) - 1, (2, 4)),
        (10, 512, 1 << 30, (1, MAX_IMAGES)),
        (10, 512, 1000 + 100 + 2 * 512 + 7 * 10, (1, 7)),
        (10, 512, 0, (1, 1)),
    ],
)
def test_batch_fits_the_budget(prompts, candidates, budget, batch):
    assert NEEDS.batch(prompts, candidates, MAX_IMAGES, budget) == batch


def test_max_batch_has_one_prompt_at_least():
    assert max_batch(3, 4, 8) == (2, 4)
    assert max_batch(3, 16, 8) == (1, 8)
