"""How exactly images come back from their latents, in PSNR."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import statistics
from .statistics import Mean, Proportion, mean, proportion

THRESHOLD = 25.0  # dB of PSNR above which an image counts as recovered


@dataclass(frozen=True)
class PSNRs:
    """The mean PSNR of images in dB, and how many are above THRESHOLD."""

    psnr: Mean
    above_threshold: Proportion

    def to_json(self) -> dict[str, Any]:
        figures = statistics.to_json({"psnr": self.psnr, "above_threshold": self.above_threshold})
        return {"threshold_db": THRESHOLD, **figures}

    def __str__(self) -> str:
        psnr = f"PSNR {self.psnr.value:.2f} ± {self.psnr.half_width:.2f} dB on average"
        return f"{psnr}; above {THRESHOLD:g} dB: {self.above_threshold}"


def psnrs(ratios: Sequence[float]) -> PSNRs:
    """Summarize the PSNR of each image, in dB."""
    return PSNRs(mean(ratios), proportion(ratio > THRESHOLD for ratio in ratios))
