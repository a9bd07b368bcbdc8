"""unCLIP's priors over a CLIP small enough to run in milliseconds."""

from typing import Any

import torch

from dalle_cli.models import models
from dalle_cli.tasks.ar_prior import ARPriorTask
from dalle_cli.tasks.prior import DiffusionPriorTask
from dalle_cli.text.learn import learn

SIZE, CONTEXT = 8, 12
CAPTIONS = ["a red circle", "a blue square on a green background"]
CLIP: dict[str, Any] = {
    "type": "clip", "embed_dim": 8,
    "image": {"type": "vit", "size": SIZE, "patch_size": 4, "width": 16, "depth": 1, "heads": 2},
    "text": {"type": "clip-text", "vocab_size": 520, "context_length": CONTEXT, "width": 12, "depth": 1, "heads": 2},
}  # fmt: skip
SIZES = {"embed_dim": 8, "context_length": CONTEXT, "text_width": 12, "width": 16, "depth": 2, "heads": 2}
DIFFUSION = {"type": "diffusion-prior", **SIZES}
AR = {"type": "ar-prior", **SIZES, "components": 6, "buckets": 8}
TASKS = {"diffusion-prior": DiffusionPriorTask, "ar-prior": ARPriorTask}


def words():
    return learn(CAPTIONS * 2, 520, "clip")


def prior(node, **options):
    """A task over a fresh CLIP, its buffers found from random pictures."""
    torch.manual_seed(0)
    clip = models.build(CLIP).requires_grad_(False).eval()
    with torch.no_grad():
        for parameter in clip.text.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)  # so that texts differ
    model = models.build(node)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
        if node["type"] == "ar-prior":
            model.out_proj.weight.mul_(30)  # which starts near zero
    task = TASKS[node["type"]](model, clip, words(), **options).eval()
    task.prepare(iter([task.collate(samples(320))]))
    return task


def samples(count=4, size=SIZE, texts=CAPTIONS):
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.rand(3, size, size, generator=generator) * 2 - 1,
            "text": texts[i % len(texts)], "seed": 100 + 7 * i, "key": str(i),
        }
        for i in range(count)
    ]  # fmt: skip
