"""Bad samples of a run: reported, listed and counted wherever the run reads its data."""

from pathlib import Path

from ..console import Progress
from ..data.loader import BadSamples
from .trackers import Log

MAX_REPORTED = 20  # on standard error; the file lists all


class Bad(BadSamples):
    """`BadSamples` that are also reported and listed in RUN/bad_samples.jsonl."""

    def __init__(self, max_bad_fraction: float, run: Path):
        super().__init__(max_bad_fraction)
        self.path = run / "bad_samples.jsonl"

    def note(self, bad: list[tuple[str, str]], good: int, progress: Progress) -> None:
        """Record the bad samples of a batch of `good` samples. Raises DataError when they are too many."""
        if bad:
            record = Log(self.path)
            for number, (key, reason) in enumerate(bad, self.reasons.total()):
                if number < MAX_REPORTED:
                    progress.note(f"bad sample {key}: {reason}; skipped (listed in {self.path})")
                record.write(key=key, reason=reason)
            record.close()
        self.count(good, bad)
