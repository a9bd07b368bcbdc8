"""The part of `make bench` for a machine with a GPU: shares of what it measures there in the same run.

Networks with random weights. The limit of training is a large matrix product in bfloat16, that of drawing one picture
is reading all weights once for each code.
"""

from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dalle_cli import recipe
from dalle_cli.hardware.cuda_graphs import recorded
from dalle_cli.models import models
from dalle_cli.models.dalle import loss
from dalle_cli.nn.all_gather import contrastive_loss
from tests.stopwatch import line, seconds

BILLION = {
    "type": "dalle", "vocab_size": 16384, "context_length": 256, "image_vocab_size": 8192, "grid_size": 32,
    "width": 1792, "depth": 24, "heads": 28,
}  # fmt: skip
PLACES = 64  # codes that are drawn


def run() -> None:
    if not torch.cuda.is_available():
        print("gpu: left out, there is none")
        return
    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * size**3 / _seconds(partial(torch.mm, a, b))
    line("matrix product", "bfloat16 on the GPU", rate / 1e12, "TFLOP/s")
    whole = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    flow = 2 * len(whole) / _seconds(whole.clone)
    line("memory", "read and written", flow / 1e12, "TB/s")
    del a, b, whole
    _draw(flow)
    for compiled in (False, True):
        _train_clip(rate, 256, compiled)
        _train_transformer(rate, 16, compiled)


def _train_clip(rate: float, batch: int, compiled: bool) -> None:
    """ViT-L/14 at 224 px."""
    settings = recipe.load("vit-l14", "clip", ["model.gradient_checkpointing=false"], complete=False)["model"]
    network = models.build(settings, "model").cuda()
    images = torch.randn(batch, 3, 224, 224, device="cuda")
    ids = torch.randint(1, 49_000, (batch, 77), device="cuda")
    ids[:, -1] = 49_407  # the end token: no text is shorter

    def measured() -> torch.Tensor:
        return contrastive_loss(*network(images, ids))

    _training("ViT-L/14 trains", network, measured, batch, "pairs/s", rate, compiled)


def _train_transformer(rate: float, batch: int, compiled: bool) -> None:
    """A billion parameters of DALL-E 1."""
    network = models.build(BILLION, "model").cuda()
    words = torch.randint(network.vocab_size, (batch, network.context_length), device="cuda")
    codes = torch.randint(network.image_vocab_size, (batch, network.grid_size**2), device="cuda")

    def measured() -> torch.Tensor:
        text, image = loss(*network(words, codes), words, codes)
        return text / 8 + image

    _training("1B transformer trains", network, measured, batch, "samples/s", rate, compiled)


def _training(what: str, network: Any, measured: Any, batch: int, unit: str, rate: float, compiled: bool) -> None:
    """A step's share of the limit; its arithmetic is counted in one that is not compiled."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)

    def step(work: Any) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            found = work()
        found.backward()
        optimizer.step()
        optimizer.zero_grad()

    with FlopCounterMode(display=False) as counter:
        step(measured)
    each = _seconds(partial(step, torch.compile(measured) if compiled else measured))
    share = counter.get_total_flops() / each / rate
    line(what, f"{share:.0%} of the limit{', compiled' * compiled}", batch / each, unit, "45 %")
    torch.cuda.empty_cache()


@torch.no_grad()
def _draw(flow: float) -> None:
    """The codes of one picture by the same transformer: from Python, recorded as where pictures are drawn, compiled."""
    network = models.build(BILLION, "model").to("cuda", torch.bfloat16).eval()
    text = torch.randint(network.vocab_size, (1, network.context_length), device="cuda")
    _, cache = network.prefill(text, 1)
    codes = torch.zeros(1, 1, dtype=torch.int64, device="cuda")
    place = torch.zeros(1, dtype=torch.int64, device="cuda")
    wall = 2 * sum(p.numel() for p in network.parameters()) / flow

    def plain() -> None:
        for at in range(PLACES):
            network.step(codes, at, cache)

    def replayed(step: Any) -> None:
        for at in range(PLACES):
            place.fill_(at)
            codes.copy_(step().argmax(-1))

    def one() -> torch.Tensor:
        return network.step(codes, place, cache)

    for how, work in (
        ("", plain),
        (", recorded", partial(replayed, recorded(one))),
        (", compiled", partial(replayed, recorded(torch.compile(one)))),
    ):
        each = _seconds(work, 3) / PLACES
        line("1B transformer draws", f"{each / wall:.1f} times the wall{how}", 1 / each, "codes/s", "2 times")


def _seconds(work: Any, repeats: int = 5) -> float:
    def done() -> None:
        work()
        torch.cuda.synchronize()

    return seconds(done, repeats)
