"""Candidates of prompts: which are generated together and by which process, and which are kept."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from .. import distributed, images
from ..systems.scorer import DIGITS, Scorer


@dataclass(frozen=True)
class Block:
    """Candidates that are generated together: numbers `columns` of each of the prompts `rows`."""

    rows: list[int]
    columns: list[int]

    def of_this_rank(self) -> tuple[list[int], list[int]]:
        """Return the rows and columns of this process: a part of the candidates or, of few, a part of the prompts."""
        rank, world_size = distributed.rank(), distributed.world_size()
        if len(self.columns) < world_size:
            return self.rows[rank::world_size], self.columns
        return self.rows, self.columns[rank::world_size]


def blocks(wanted: Mapping[int, list[int]], max_prompts: int, max_candidates: int) -> list[Block]:
    """Return blocks of neighboring prompts with the same candidates. wanted: candidates to generate, by prompt."""
    groups: list[Block] = []
    for row, columns in wanted.items():
        if groups and groups[-1].columns == columns and len(groups[-1].rows) < max_prompts:
            groups[-1].rows.append(row)
        else:
            groups.append(Block([row], columns))
    return [
        Block(group.rows, group.columns[start : start + max_candidates])
        for group in groups
        for start in range(0, len(group.columns), max_candidates)
    ]


@dataclass(frozen=True)
class Candidate:
    """Candidate `number` of a prompt, with its score if it was scored."""

    number: int
    score: float | None
    image: Image.Image

    @property
    def digest(self) -> bytes:
        """A hash of the pixels."""
        return _digest(self.image)


@dataclass(frozen=True)
class Candidates:
    """The best candidates of a prompt, best first, and the pixel hashes of all that were scored."""

    best: list[Candidate] = field(default_factory=list)
    digests: frozenset[bytes] = frozenset()


def select(scorer: Scorer | None, prompt: str, generated: Tensor, numbers: Sequence[int], max_kept: int) -> Candidates:
    """Return the best candidates of a prompt, or all in order without a scorer.

    generated: images (N, 3, S, S) of the candidates `numbers`. Identical images come after all others, whatever their
    score.
    """
    if scorer is None:
        return Candidates([Candidate(number, None, images.to_pil(image)) for number, image in zip(numbers, generated)])
    # Rounded first: identical images score the same whatever they were generated and scored with.
    cosines = (scorer.images(generated) @ scorer.texts([prompt])[0]).tolist()
    everything = [
        Candidate(number, round(score, DIGITS), images.to_pil(image))
        for number, score, image in zip(numbers, cosines, generated)
    ]
    digests = frozenset(candidate.digest for candidate in everything)
    return Candidates(_distinct_first(everything)[:max_kept], digests)


def merge(parts: Sequence[Candidates], max_kept: int) -> Candidates:
    """Return the best candidates of several parts of a prompt's candidates."""
    everything = [candidate for part in parts for candidate in part.best]
    digests = frozenset().union(*(part.digests for part in parts))
    return Candidates(_distinct_first(everything)[:max_kept], digests)


def _distinct_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Sort by score, best first, then by number; repetitions of scored images come last."""
    ranked = sorted(candidates, key=lambda candidate: (-(candidate.score or 0.0), candidate.number))
    seen: set[bytes] = set()
    first: list[Candidate] = []
    repeated: list[Candidate] = []
    for candidate in ranked:
        known = candidate.score is not None and candidate.digest in seen
        (repeated if known else first).append(candidate)
        if candidate.score is not None:
            seen.add(candidate.digest)
    return first + repeated


def _digest(image: Image.Image) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()
