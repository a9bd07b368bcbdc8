"""Checks of data before training on it: what is broken, missing, duplicated or too long; and previews of a batch."""

import hashlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from ..contact_sheet import contact_sheet
from ..images import to_pil
from .loader import Data, build
from .mixture import Mixture
from .section import Loading, open_source
from .source import BadSample, Source, all_captions

SIDES = (32, 64, 128, 256, 512, 1024, 2048)  # pixels
WORDS = (1, 4, 8, 16, 32, 64, 128)


class Encoder(Protocol):
    def encode(self, text: str) -> Sequence[int]: ...


class _Facts(NamedTuple):
    """What the report needs of a good sample."""

    side: int  # pixels of the shorter side
    image: int  # hash of the pixels
    key: int
    texts: list[str]


def examine(
    node: Any,
    tokenizer: Encoder | None = None,
    context: int | None = None,
    threads: int = 4,
    progress: Callable[[int, int], None] | None = None,
    shown: int = 20,
) -> dict[str, Any]:
    """Read every sample of a `data` section, at full size, and report. Raises RecipeError and DataError.

    context: tokens that a model takes, to count captions that are longer. progress: called with (done, all). shown:
    how many of each kind are named. The report:

        samples, good, bad {reason: count}, bad_samples [(key, reason)], problems [line]
        sides [[from, below or None, count]]: of the shorter side, in pixels
        captions {empty, count, unit (tokens or words), longest, over_context, lengths [[from, below or None, count]]}
        duplicates {keys, images, captions}: each {count (beyond the first of each), keys (examples)}
    """
    source, loading = open_source(node, reduced=False)
    parts = source.sources if isinstance(source, Mixture) else [source]
    problems = [line for part in parts for line in getattr(part, "problems", [])]
    total = sum(sum(part.blocks) for part in parts)

    bad: list[tuple[str, str]] = []
    reasons: Counter[str] = Counter()
    positions = [array("q"), array("q"), array("q")]  # of good samples: part, block, index
    sides, keys, images, texts, owners, lengths = (array(code) for code in "qQQQqq")
    empty = 0
    for done, (position, facts) in enumerate(_survey(parts, threads, loading), 1):
        if isinstance(facts, BadSample):
            reasons[facts.reason.partition(":")[0]] += 1
            bad += [(facts.key, facts.reason)] if len(bad) < shown else []
        else:
            for column, number in zip(positions, position):
                column.append(number)
            sides.append(facts.side)
            keys.append(facts.key)
            images.append(facts.image)
            empty += not facts.texts
            for text in facts.texts:
                texts.append(_hash(text.encode("utf-8", "replace")))
                owners.append(len(sides) - 1)
                lengths.append(len(tokenizer.encode(text) if tokenizer else text.split()))
        if progress:
            progress(done, total)

    def name(number: int) -> str:
        part, block, index = (column[number] for column in positions)
        return parts[part].read(block, index)["key"]

    longest = max(lengths, default=0)
    steps = [context * step // 8 for step in range(1, 9)] if context else WORDS
    return {
        "samples": total,
        "good": len(sides),
        "bad": dict(reasons.most_common()),
        "bad_samples": bad,
        "problems": problems,
        "sides": _histogram(sides, SIDES),
        "captions": {
            "empty": empty,
            "count": len(lengths),
            "unit": "tokens" if tokenizer else "words",
            "longest": longest,
            "over_context": int((np.array(lengths) > context).sum()) if context else None,
            "lengths": _histogram(lengths, [step + 1 for step in steps]),
        },
        "duplicates": {
            "keys": _repeated(keys, range(len(keys)), name, shown),
            "images": _repeated(images, range(len(images)), name, shown),
            "captions": _repeated(texts, owners, name, shown),
        },
    }


def preview(node: Any, count: int = 16, seed: int = 0) -> Image.Image:
    """Contact sheet of the first `count` training samples as a model will see them, cropped and captioned."""
    data: Data = build({**node, "num_workers": 0})
    batch = next(data.train(count, seed=seed))
    return contact_sheet([to_pil(image) for image in batch["image"]], batch["text"])


def _survey(
    parts: list[Source], threads: int, loading: Loading
) -> Iterator[tuple[tuple[int, int, int], _Facts | BadSample]]:
    """Yield facts of every sample in order, read by threads (Pillow decodes without the interpreter's lock)."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[tuple[int, int, int], Future]] = deque()
        for number, part in enumerate(parts):
            for block, size in enumerate(part.blocks):
                for index in range(size):
                    waiting.append(((number, block, index), pool.submit(_facts, part, block, index, loading)))
                    if len(waiting) > 8 * threads:
                        position, future = waiting.popleft()
                        yield position, future.result()
        for position, future in waiting:
            yield position, future.result()


def _facts(source: Source, block: int, index: int, loading: Loading) -> _Facts | BadSample:
    try:
        sample = source.read(block, index)
    except BadSample as error:
        return error
    pixels = np.asarray(sample["image"])
    texts = all_captions(sample["text"], loading.caption)
    if loading.require_captions and not texts:
        return BadSample("no caption", sample["key"])
    return _Facts(
        side=min(pixels.shape[:2]),
        image=_hash(repr(pixels.shape).encode() + pixels.tobytes()),
        key=_hash(sample["key"].encode("utf-8", "replace")),
        texts=texts,
    )


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _histogram(values: Sequence[int], steps: Sequence[int]) -> list[list[int | None]]:
    """[from, below, count] between the steps; the last has no upper bound."""
    bounds = [0, *dict.fromkeys(steps)]
    counts = np.bincount(np.searchsorted(bounds, values, side="right") - 1, minlength=len(bounds))
    return [[low, below, int(count)] for low, below, count in zip(bounds, [*bounds[1:], None], counts)]


def _repeated(hashes: Sequence[int], owners: Sequence[int], name: Callable[[int], str], shown: int) -> dict[str, Any]:
    """Return how many values equal an earlier one, and the keys of the first of them."""
    values = np.array(hashes, np.uint64)
    order = np.argsort(values, kind="stable")
    again = np.sort(order[1:][values[order[1:]] == values[order[:-1]]])
    return {"count": len(again), "keys": [name(owners[number]) for number in again[:shown]]}
