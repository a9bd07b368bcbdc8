"""How many pictures are drawn together in the memory that is free, and what drawing will take."""

from dataclasses import dataclass
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from ..hardware.capabilities import estimating_for, free_memory
from ..hardware.memory_meter import FRAGMENTATION, MEMORY_FRACTION, PROGRAM_BYTES, SMALL_BATCH, fit_peak_memory
from ..nn.prepacked import MIN_WEIGHTS, prepacked_bytes
from .scorer import BATCH, Scorer


@dataclass(frozen=True)
class Needs:
    """Bytes held while pictures are drawn: whatever their number, by each prompt, and by each candidate of a prompt;
    and those of a finished picture."""

    fixed: int
    prompt: int
    candidate: int
    picture: int

    def drawing(self, prompts: int, candidates: int) -> int:
        return self.fixed + prompts * (self.prompt + candidates * self.candidate)

    def kept(self, prompts: int, candidates: int) -> int:
        """Of finished pictures, which are copied once when all candidates are there."""
        return 2 * prompts * candidates * self.picture

    def plan(self, prompts: int, candidates: int, most: int, room: int) -> tuple[int, int]:
        """Prompts and candidates of each to draw together: at most `most` pictures, in `room` bytes, at least one."""
        group, batch = _most(prompts, candidates, most)
        while group > 1 and self.drawing(group, batch) + self.kept(group, candidates) > room:
            group -= 1
        if group > 1:
            return group, batch
        rest = room - self.drawing(1, 0) - self.kept(1, candidates)
        return 1, max(1, min(batch, rest // max(self.candidate, 1)))


def _most(prompts: int, candidates: int, most: int) -> tuple[int, int]:
    return max(1, min(prompts, most // candidates)), min(candidates, most)


def plan(system: Any, options: Any, prompts: int, candidates: int) -> tuple[int, int]:
    """Prompts and candidates of each to draw together on the system's device, looking at memory where many are."""
    most = system.together
    group, batch = _most(prompts, candidates, most)
    if group * batch <= SMALL_BATCH or not hasattr(system, "needs"):
        return group, most
    return system.needs(options).plan(prompts, candidates, most, int(MEMORY_FRACTION * free_memory(system.device.name)))


def estimate(
    system: Any, scorer: Scorer | None, options: Any, prompts: int, candidates: int, asked: int | None
) -> dict[str, int]:
    """Bytes that drawing would hold at its peak, in parts and their `total`.

    system: of a kind with `needs`; it and the scorer on an `empty` device. asked: --batch-size.
    """
    device = system.device.name
    room = int(MEMORY_FRACTION * free_memory(device))
    models = [system.task, *(scorer.tasks if scorer else ())]
    weights = [sum(value.nbytes for value in (*one.parameters(), *one.buffers())) for one in models]
    read = max(4 * sum(value.numel() for value in one.model.parameters()) for one in models)  # as float32, beside it
    with FakeTensorMode(allow_non_fake_inputs=True), estimating_for(device):
        for model in models:
            model.to_empty(device="cpu")
        with system.device.autocast():
            copies = {"drawing": prepacked_bytes(system.task.model, min_weights=MIN_WEIGHTS) if device == "cpu" else 0}
        needs = system.needs(options)
        group, batch = needs.plan(prompts, candidates, system.together, room)
        if asked:
            group, batch = max(1, min(asked // candidates, prompts)), min(asked, candidates)
        decoding = fit_peak_memory(system.try_decoding)
        works = {"drawing": needs.drawing(group, batch)}
        works["decoding"] = decoding.of(min(group * batch, decoding.within(room)))
        if scorer:
            scoring = fit_peak_memory(scorer.try_scoring)
            copies["scoring"] = scorer.copies()
            works["scoring"] = scoring.of(min(candidates, BATCH, scoring.within(room - copies["scoring"])))
    found = {"program": PROGRAM_BYTES[device], "weights": sum(weights), "pictures": needs.kept(group, candidates)}
    found |= {name: int(FRAGMENTATION[device] * held) + copies.get(name, 0) for name, held in works.items()}
    most = found["pictures"] + max(found[name] for name in works)
    return {**found, "total": found["program"] + found["weights"] + max(read, most)}
