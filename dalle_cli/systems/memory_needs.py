"""The memory that generating takes, as a function of the batch, and the batch that fits a memory budget."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes held while generating: fixed, per prompt, and per candidate of a prompt; and those of a finished image."""

    fixed: int
    per_prompt: int
    per_candidate: int
    finished_image: int

    def generating(self, prompts: int, candidates: int) -> int:
        """Return the bytes held while the candidates of all prompts are generated at once."""
        return self.fixed + prompts * (self.per_prompt + candidates * self.per_candidate)

    def finished(self, prompts: int, candidates: int) -> int:
        """Return the bytes of the finished images, which are copied once when all candidates are done."""
        return 2 * prompts * candidates * self.finished_image

    def batch(self, prompts: int, candidates: int, max_images: int, budget: int) -> tuple[int, int]:
        """Return how many prompts, and candidates of each, to generate at once within `budget` bytes, at least one."""
        group, batch = max_batch(prompts, candidates, max_images)
        while group > 1 and self.generating(group, batch) + self.finished(group, candidates) > budget:
            group -= 1
        if group > 1:
            return group, batch
        rest = budget - self.generating(1, 0) - self.finished(1, candidates)
        return 1, max(1, min(batch, rest // max(self.per_candidate, 1)))


def max_batch(prompts: int, candidates: int, max_images: int) -> tuple[int, int]:
    """Return how many prompts, and candidates of each, make at most `max_images` images."""
    return max(1, min(prompts, max_images // candidates)), min(candidates, max_images)
