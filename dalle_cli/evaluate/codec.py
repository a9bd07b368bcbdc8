"""How well a dVAE or a VQGAN keeps unseen scenes."""

from dataclasses import dataclass
from typing import Any

import torch

from .. import checkpoint
from ..hardware.capabilities import fast_bf16, free_memory
from ..hardware.memory_meter import SHARE, together
from . import unseen_scenes


@dataclass(frozen=True)
class Report:
    """psnr: dB, of each picture and averaged; of_all: dB of the mean error; used: share of the codes that occur."""

    pictures: int
    size: int
    psnr: float
    of_all: float
    used: float


@torch.no_grad()
def evaluate(model: str, count: int, glyphs: str, size: int | None = None) -> Report:
    """Reconstruct `count` unseen scenes. Raises CheckpointError."""
    codec: Any = checkpoint.load(model, ("dvae", "vqgan")).model
    size = size or checkpoint.pixels(checkpoint.resolve(model), 64)
    errors, used = [], set()
    pictures = [picture for _, _, picture in unseen_scenes.scenes(count, size, glyphs)]
    room = int(SHARE * free_memory("cpu"))
    batch = together(lambda some: codec.decode(codec.encode(torch.zeros(some, 3, size, size))), count, 64, room)
    for start in range(0, count, batch):
        image = unseen_scenes.batch(pictures[start : start + batch])
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
            codes = codec.encode(image)
            redrawn = codec.decode(codes).float()
        errors.append(((image - redrawn) / 2).pow(2).mean(dim=(1, 2, 3)).clamp(min=1e-10))
        used.update(codes.flatten().tolist())
    error = torch.cat(errors)
    each = -10 * error.log10().mean().item()
    return Report(count, size, each, -10 * error.mean().log10().item(), len(used) / codec.vocab_size)
