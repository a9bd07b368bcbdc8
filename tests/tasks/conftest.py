"""Decoders small enough to run in milliseconds, with every kind of condition."""

from typing import Any

import torch

from dalle_cli.models import models
from dalle_cli.tasks.decoder import DecoderTask
from dalle_cli.text.learn import learn
from tests.models.test_adm import awake

SIZE = 8
CAPTIONS = ["a red circle", "a blue square on a green background"]
TEXT = {"type": "text-condition", "vocab_size": 260, "context_length": 6, "width": 32, "depth": 1, "heads": 2}
LABEL = {"type": "label-condition", "classes": 3}
LOW_RES = {"type": "low-res-condition", "factor": 2}
INPAINT = {"type": "inpaint-condition"}
IMAGE = {"type": "clip-condition", "embed_dim": 8, "tokens": 2, "width": 32}
STATES = {"type": "clip-text-condition", "embed_dim": 8, "text_width": 16, "width": 32}
CLIP = {
    "type": "clip",
    "embed_dim": 8,
    "image": {"type": "vit", "size": 16, "patch_size": 8, "width": 16, "depth": 1, "heads": 2},
    "text": {"type": "clip-text", "vocab_size": 520, "context_length": 10, "width": 16, "depth": 1, "heads": 2},
}
UNET: dict[str, Any] = {
    "type": "unet", "base_channels": 32, "channel_mult": [1, 1], "num_res_blocks": 1, "attention_factors": [2],
    "head_dim": 32,
}  # fmt: skip


def words():
    return learn(CAPTIONS * 2, 260, "glide")


def clip_words():
    return learn(CAPTIONS * 2, 520, "clip")


def clip():
    torch.manual_seed(1)
    return awake(models.build(CLIP)).eval().requires_grad_(False)


def decoder(task=None, companion=None, **conditions) -> DecoderTask:
    """A decoder that reads text and whatever else is given; no parameter of its network is zero.

    companion: the CLIP that it is trained with.
    """
    given = {"text": TEXT} | conditions
    given = {name: node for name, node in given.items() if node}
    options = {"variance": "small"} | (task or {})
    learned = options["variance"].startswith("learned")
    torch.manual_seed(0)
    model = awake(models.build(UNET | {"learned_variance": learned, "conditions": given}))
    tokenizer = None
    if "text" in given:
        tokenizer = clip_words() if given["text"] is STATES else words()
    return DecoderTask(model, SIZE, tokenizer, companion, **options).eval()


def samples(count=4, size=SIZE, texts=CAPTIONS):
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.rand(3, size, size, generator=generator) * 2 - 1,
            "text": texts[i % len(texts)], "seed": 100 + 7 * i, "key": str(i),
        }
        for i in range(count)
    ]  # fmt: skip
