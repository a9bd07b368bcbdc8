"""Bad samples of a run: said, listed and counted, wherever the run reads its data."""

from pathlib import Path

from ..console import Progress
from ..data.loader import BadSamples
from .trackers import Log

SAID = 20  # on the screen; the file lists all


class Bad(BadSamples):
    """`BadSamples` that are also listed in RUN/bad_samples.jsonl."""

    def __init__(self, max_bad_fraction: float, run: Path):
        super().__init__(max_bad_fraction)
        self.path = run / "bad_samples.jsonl"

    def note(self, found: list[tuple[str, str]], good: int, progress: Progress) -> None:
        """Record the bad samples of a batch in which `good` others stand for them. Raises DataError."""
        if found:
            record = Log(self.path)
            for number, (key, reason) in enumerate(found, self.reasons.total()):
                if number < SAID:
                    progress.note(f"bad sample {key}: {reason}; skipped (listed in {self.path})")
                record.write(key=key, reason=reason)
            record.close()
        self.count(good, found)
