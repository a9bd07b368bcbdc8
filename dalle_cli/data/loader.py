"""Batches: the same ones at any number of processes and workers.

Position p of the endless sequence of training samples determines the sample, its crop and every other random choice, so
the number of samples seen is all that a resumed run needs.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..images import to_bytes
from ..registry import RecipeError
from .mixture import Mixture, apportion, assign
from .order import Order, combine
from .section import Loading, open_source
from .section import check as check  # exported next to `build`
from .source import BadSample, DataError, Source, choose_caption
from .transforms import CROPS, held_out_crop, mirror
from .workers import deliver

if TYPE_CHECKING:
    import torch

Collate = Callable[[list[dict]], dict]

ATTEMPTS = 100  # bad samples in a row before giving up
STRIDE = 1009  # from a bad sample to its replacement: within the window of shards that are open, outside most batches


def build(node: Any, path: str = "data") -> "Data":
    """Return the data of a `data` section. Raises RecipeError, or DataError for files that cannot be used."""
    return Data(*open_source(node, path))


def stack(samples: list[dict]) -> dict:
    """Return a batch: text and key lists, seed (B,) int64, and the images in whatever form the samples have them.

    That is any of image (B, 3, S, S), image_tokens (B, h, w) int64, and embedding (B, e) float32.
    """
    import torch

    images = {}
    for name, kind in (("image_tokens", np.int64), ("embedding", np.float32)):
        if name in samples[0]:
            images[name] = torch.from_numpy(np.stack([sample[name] for sample in samples]).astype(kind))
    if "image" in samples[0]:
        images["image"] = torch.stack([sample["image"] for sample in samples])
    return {
        **images,
        "text": [sample["text"] for sample in samples],
        "key": [sample["key"] for sample in samples],
        "seed": torch.tensor([sample["seed"] for sample in samples]),
    }


class Data:
    """Training and validation batches of a source.

    samples: training samples in an epoch. held_out: samples held out for validation. problems: one line about each
    problem with the files, such as missing shards.

    The workers call `collate` with samples: `image` uint8 (3, S, S), `text`, `key`, and `seed`, 63 bits that no other
    sample has. The batch it returns arrives with its tensors on `device` and `image` as float32 in [-1, 1] (bytes are
    sent between processes, a quarter of the size). Its `bad` lists (key, reason) of the samples that could not be used
    and were replaced by others.
    """

    def __init__(self, source: Any, loading: Loading):
        self.loading = loading
        self.sources: list[Source] = [source]
        self.weights, length = [1], None
        if isinstance(source, Mixture):
            self.sources, self.weights, length = source.sources, source.counts, source.samples
        self.problems = [line for source in self.sources for line in getattr(source, "problems", [])]
        sizes = [sum(source.blocks) for source in self.sources]
        self.held_out = loading.val_samples
        if self.held_out is None:  # no source loses more than a twentieth
            self.held_out = min(
                256, *(size * sum(self.weights) // (20 * weight) for size, weight in zip(sizes, self.weights))
            )
        self._held_out = apportion(self.weights, self.held_out)
        for size, count in zip(sizes, self._held_out):
            if count >= size:
                raise DataError(f"data.val_samples: {self.held_out} samples leave none of {size} to train on; lower it")
        self.samples = length or sum(sizes) - self.held_out

    def train(
        self,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        seed: int = 0,
        collate: Collate = stack,
        accumulate: int = 1,
        device: "torch.device | str" = "cpu",
    ) -> Iterator[dict]:
        """Yield the training batches of process `rank` of `world`, endlessly, from sample `start` of the sequence.

        batch_size: samples of one step, over all processes and all its `accumulate` parts; each batch is one part of
        one process. Raises RecipeError when it does not divide.
        """
        parts = world * accumulate
        if batch_size < 1 or batch_size % parts:
            raise RecipeError(
                f"train.batch_size: {batch_size} does not divide among {world} processes x {accumulate} parts of a step"
            )
        reader = _Reader(self, seed, True, start, batch_size // parts, rank, world, collate)
        return deliver(reader, itertools.count(), self.loading.num_workers, device)

    def validation(
        self,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        collate: Collate = stack,
        device: "torch.device | str" = "cpu",
    ) -> Iterator[dict]:
        """Yield the held-out samples in order, center-cropped or padded: equally many equal batches in every process.

        batch_size: maximum over all processes. A remainder of less than one sample per batch and process is left out.
        """
        if not self.held_out:
            return iter(())
        batches = -(-self.held_out // max(batch_size, world))
        part = max(1, self.held_out // batches // world)
        reader = _Reader(self, 0, False, 0, part, rank, world, collate)
        return deliver(reader, range(batches), min(self.loading.num_workers, batches), device)


class BadSamples:
    """Counts bad samples, and stops the run when their fraction exceeds `max_bad_fraction`."""

    def __init__(self, max_bad_fraction: float):
        self.max_bad_fraction = max_bad_fraction
        self.seen = 0
        self.reasons: Counter[str] = Counter()
        self.first: list[tuple[str, str]] = []

    def count(self, good: int, bad: list[tuple[str, str]]) -> None:
        """Add a batch of `good` samples that replaced the `bad` ones. Raises DataError, but not before 100 samples."""
        self.seen += good + len(bad)
        self.reasons.update(reason.partition(":")[0] for _, reason in bad)
        self.first += bad[: 20 - len(self.first)]
        fraction = self.reasons.total() / max(self.seen, 1)
        if self.seen >= 100 and fraction > self.max_bad_fraction:
            summary = _summary(self.first, self.reasons)
            raise DataError(
                f"{fraction:.1%} of {self.seen} samples are bad, above "
                f"data.max_bad_fraction={self.max_bad_fraction}: {summary}"
            )


class _Reader:
    """Batches by number, as a worker process holds them: item i is part i of the sequence of one process."""

    def __init__(
        self, data: Data, seed: int, training: bool, start: int, part: int, rank: int, world: int, collate: Collate
    ):
        self.data, self.seed, self.training, self.collate = data, seed, training, collate
        self.start, self.part, self.rank, self.world = start, part, rank, world
        windows = [getattr(source, "window", None) for source in data.sources]
        self.orders = [
            Order(source.blocks, int(combine(seed, number)[0]), held_out, window)
            for number, (source, held_out, window) in enumerate(zip(data.sources, data._held_out, windows))
        ]
        self.crop = CROPS[data.loading.crop] if training else held_out_crop(data.loading.crop)

    def __getitem__(self, number: int) -> dict | DataError:
        first = self.start + (number * self.world + self.rank) * self.part
        positions = np.arange(first, first + self.part)
        if self.training:
            which, within = assign(positions, self.data.weights, self.seed)
        else:  # one source after the other; a small set is repeated
            ends = np.cumsum(self.data._held_out)
            positions %= ends[-1]
            which = np.searchsorted(ends, positions, side="right")
            within = positions - (ends - self.data._held_out)[which]
        seeds = combine(self.seed, positions) >> np.uint64(1)
        samples: list[dict] = []
        bad: list[tuple[str, str]] = []
        try:
            # All positions are located at once, which is fast; one by one only after a bad sample.
            blocks, indices = np.empty_like(within), np.empty_like(within)
            for source in np.unique(which):
                chosen = which == source
                blocks[chosen], indices[chosen] = self._locate(source, within[chosen])
            for position in zip(which.tolist(), within.tolist(), blocks.tolist(), indices.tolist(), seeds.tolist()):
                samples.append(self._read(*position, bad))
        except DataError as error:
            return error  # raised by the process that asked, as the one line it is
        return {**self.collate(samples), "bad": bad}

    def _locate(self, source: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = self.orders[source]
        return order.at(positions) if self.training else order.held_out(positions)

    def _read(self, source: int, position: int, block: int, index: int, seed: int, bad: list[tuple[str, str]]) -> dict:
        """Return a sample, or the first good one a fixed stride further in the same source and epoch."""
        failed: list[tuple[str, str]] = []
        count = self.orders[source].samples if self.training else self.data._held_out[source]
        epoch, offset = divmod(position, count)
        for attempt in range(min(ATTEMPTS, count)):
            try:
                sample = self._prepare(self.data.sources[source].read(block, index), seed)
                bad += failed
                return sample
            except BadSample as error:
                failed.append((error.key, error.reason))
            further = 1 + (STRIDE + attempt) % max(count - 1, 1)  # never back to itself
            there = np.array([epoch * count + (offset + further) % count])
            block, index = (int(column[0]) for column in self._locate(source, there))
        reasons = Counter(reason.partition(":")[0] for _, reason in failed)
        raise DataError(f"data: {len(failed)} samples in a row are bad: {_summary(failed, reasons)}")

    def _prepare(self, sample: dict, seed: int) -> dict:
        loading = self.data.loading
        rng = random.Random(seed)
        text = choose_caption(sample["text"], loading.caption, rng if self.training else None)
        if loading.require_captions and not text.strip():
            raise BadSample("no caption", sample["key"])
        common = {"text": text, "key": sample["key"], "seed": seed}
        # what a dVAE or a CLIP computed from the image before
        common |= {name: sample[name] for name in ("image_tokens", "embedding") if name in sample}
        image = sample.get("image")
        if image is None:
            return common
        if not isinstance(image, Image.Image):
            image = Image.fromarray(image)
        side = max(image.size) if loading.crop == "pad" else min(image.size)
        enlarged = max(1.0, loading.size / side)
        if enlarged**2 * image.width * image.height > loading.max_pixels:
            raise BadSample(f"too narrow: {image.width}x{image.height}, enlarged {enlarged:.0f} times", sample["key"])
        image = self.crop(image, loading.size, rng)
        if self.training and loading.flip:
            image = mirror(image, rng)
        return {**common, "image": to_bytes(image)}


def _summary(bad: list[tuple[str, str]], reasons: Counter[str]) -> str:
    counts = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(4))
    return f"{counts}; the first: {', '.join(key for key, _ in bad[:3])}"
