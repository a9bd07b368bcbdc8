"""Whether an upsampler does better than bicubic interpolation: the true large picture is known (PSNR, dB)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..data.bsr_degradation import worse
from ..data.degradations import reduced
from ..images import BICUBIC, psnr, to_bytes, to_pil, to_tensor
from . import unseen_scenes
from .diversity import Mean, mean

KINDS = ("clean", "degraded")  # the small picture: reduced by area alone, or degraded as photographs are (tasks/bsr.py)


@dataclass(frozen=True)
class Pair:
    """A scene large and small, RGB, and its caption."""

    caption: str
    large: Image.Image
    small: Image.Image


@dataclass(frozen=True)
class Report:
    """Means over pictures, in dB, of what was drawn, of bicubic interpolation, and of the difference of the two."""

    kind: str
    drawn: Mean
    bicubic: Mean
    gain: Mean

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON; one picture has no interval."""
        interval = self.gain.interval if self.gain.count > 1 else None
        values = {"psnr": self.drawn.value, "bicubic": self.bicubic.value, "gain": self.gain.value}
        return {"input": self.kind, "pictures": self.gain.count, **values, "gain_interval": interval}


def pairs(count: int, size: int, factor: int, glyphs: str, kind: str) -> Iterator[Pair]:
    """`count` unseen scenes of `size` px and the same `factor` times smaller; `kind` is of KINDS."""
    for number, (_, text, picture) in enumerate(unseen_scenes.scenes(count, size, glyphs)):
        large = Image.fromarray(picture)
        yield Pair(text, large, _clean(large, factor) if kind == "clean" else _degraded(large, factor, number))


def bicubic(pair: Pair) -> Image.Image:
    """The small picture enlarged by bicubic interpolation."""
    return pair.small.resize(pair.large.size, BICUBIC)


def score(kind: str, found: Sequence[Pair], drawn: Sequence[Image.Image]) -> Report:
    """Compare drawn pictures, in the order of the pairs, with the true ones."""
    truths = [to_tensor(pair.large) for pair in found]
    own = [psnr(to_tensor(picture), truth) for picture, truth in zip(drawn, truths, strict=True)]
    other = [psnr(to_tensor(bicubic(pair)), truth) for pair, truth in zip(found, truths)]
    return Report(kind, mean(own), mean(other), mean([a - b for a, b in zip(own, other)]))


def table(reports: Sequence[Report]) -> list[str]:
    """Lines of text: a row for each kind of small pictures."""
    lines = [f"{'input':<10} {'pictures':>8} {'PSNR dB':>8} {'bicubic':>8}  difference (95 % interval)"]
    for one in reports:
        low, high = one.gain.interval
        values = f"{one.gain.count:>8} {one.drawn.value:>8.2f} {one.bicubic.value:>8.2f}"
        lines.append(f"{one.kind:<10} {values}  {one.gain.value:+.2f} ({low:+.2f} to {high:+.2f})")
    return lines


def _clean(large: Image.Image, factor: int) -> Image.Image:
    seeds = torch.zeros(1, dtype=torch.int64)  # nothing random is asked for
    return to_pil(reduced(to_tensor(large)[None], factor, seeds)[0])


def _degraded(large: Image.Image, factor: int, seed: int) -> Image.Image:
    small: Tensor = worse(to_bytes(large), factor, seed, clean=0.0)
    return Image.fromarray(small.permute(1, 2, 0).contiguous().numpy())
