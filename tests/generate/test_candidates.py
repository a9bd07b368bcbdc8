from typing import Any

import torch
from PIL import Image

from dalle_cli import distributed
from dalle_cli.generate.candidates import Block, Candidate, Candidates, blocks, merge, select


class Scores:
    """A scorer whose score is the mean of the pixels."""

    def images(self, batch):
        return batch.mean(dim=(1, 2, 3))[:, None]

    def texts(self, prompts):
        return torch.ones(len(prompts), 1)


def plain(*levels):
    return torch.stack([torch.full((3, 2, 2), level) for level in levels])


def numbers(candidates):
    return [candidate.number for candidate in candidates.best]


def test_blocks_join_prompts_with_the_same_candidates():
    wanted = {0: [0, 1], 1: [0, 1], 2: [0, 1], 3: [1]}
    assert blocks(wanted, 2, 8) == [Block([0, 1], [0, 1]), Block([2], [0, 1]), Block([3], [1])]
    assert blocks({0: [0, 1, 2]}, 1, 2) == [Block([0], [0, 1]), Block([0], [2])]


def test_ranks_share_candidates_or_prompts(monkeypatch):
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    assert Block([4, 5], [0, 1, 2]).of_this_rank() == ([4, 5], [1])
    assert Block([4, 5], [7]).of_this_rank() == ([5], [7])


def test_best_come_first():
    found = select(Scores(), "x", plain(0.1, 0.5, -0.2), [3, 4, 5], 2)  # type: ignore[arg-type]
    assert numbers(found) == [4, 3]
    assert len(found.digests) == 3


def test_identical_images_come_after_all_others():
    found = select(Scores(), "x", plain(0.5, 0.5, -0.2, 0.5), [0, 1, 2, 3], 3)  # type: ignore[arg-type]
    assert numbers(found) == [0, 2, 1]
    assert len(found.digests) == 2


def test_without_a_scorer_all_stay_in_order():
    found = select(None, "x", plain(0.5, 0.5, -0.2), [2, 0, 1], 1)
    assert numbers(found) == [2, 0, 1]
    assert [candidate.score for candidate in found.best] == [None] * 3


def test_parts_of_several_processes_are_merged():
    scorer: Any = Scores()
    first = select(scorer, "x", plain(0.5, 0.1), [0, 2], 2)
    second = select(scorer, "x", plain(0.5, 0.3), [1, 3], 2)
    assert numbers(merge([first, second], 3)) == [0, 3, 2]
    assert len(merge([first, second], 3).digests) == 3
    unscored = [Candidates([Candidate(n, None, Image.new("RGB", (1, 1)))]) for n in (1, 0)]
    assert numbers(merge(unscored, 5)) == [0, 1]
