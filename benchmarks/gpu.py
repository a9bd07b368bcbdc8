"""Speeds on a GPU, as fractions of the peak measured in the same run.

Networks with random weights. The peak of training is a large matrix product in bfloat16; the bound of sampling one
image is reading all weights once per token.
"""

from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dalle_cli import recipe
from dalle_cli.hardware.cuda_graphs import as_cuda_graph
from dalle_cli.models import models
from dalle_cli.models.dalle import token_losses
from dalle_cli.nn.all_gather import contrastive_loss

from .stopwatch import line, seconds

BILLION = {
    "type": "dalle", "vocab_size": 16384, "context_length": 256, "image_vocab_size": 8192, "grid_size": 32,
    "width": 1792, "depth": 24, "heads": 28,
}  # fmt: skip
TOKENS = 64  # that are sampled


def run() -> None:
    if not torch.cuda.is_available():
        print("gpu: skipped, there is none")
        return
    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * size**3 / _seconds(partial(torch.mm, a, b))
    line("matrix product", "bfloat16 on the GPU", rate / 1e12, "TFLOP/s")
    buffer = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    bandwidth = 2 * len(buffer) / _seconds(buffer.clone)
    line("memory", "read and written", bandwidth / 1e12, "TB/s")
    del a, b, buffer
    _sample(bandwidth)
    for compiled in (False, True):
        _train_clip(rate, 256, compiled)
        _train_transformer(rate, 16, compiled)


def _train_clip(rate: float, batch: int, compiled: bool) -> None:
    """ViT-L/14 at 224 px."""
    settings = recipe.load("vit-l14", "clip", ["model.gradient_checkpointing=false"], complete=False)["model"]
    network = models.build(settings, "model").cuda()
    images = torch.randn(batch, 3, 224, 224, device="cuda")
    ids = torch.randint(1, 49_000, (batch, 77), device="cuda")
    ids[:, -1] = 49_407  # the end token: all texts have the full length

    def measured() -> torch.Tensor:
        return contrastive_loss(*network(images, ids))

    _training("ViT-L/14 trains", network, measured, batch, "pairs/s", rate, compiled)


def _train_transformer(rate: float, batch: int, compiled: bool) -> None:
    """A billion parameters of DALL-E 1."""
    network = models.build(BILLION, "model").cuda()
    text = torch.randint(network.vocab_size, (batch, network.context_length), device="cuda")
    image = torch.randint(network.image_vocab_size, (batch, network.grid_size**2), device="cuda")

    def measured() -> torch.Tensor:
        text_loss, image_loss = token_losses(*network(text, image), text, image)
        return text_loss / 8 + image_loss

    _training("1B transformer trains", network, measured, batch, "samples/s", rate, compiled)


def _training(what: str, network: Any, measured: Any, batch: int, unit: str, rate: float, compiled: bool) -> None:
    """Print the fraction of the peak; the FLOPs are counted in a step that is not compiled."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)

    def step(work: Any) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = work()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    with FlopCounterMode(display=False) as counter:
        step(measured)
    each = _seconds(partial(step, torch.compile(measured) if compiled else measured))
    fraction = counter.get_total_flops() / each / rate
    line(what, f"{fraction:.0%} of the peak{', compiled' * compiled}", batch / each, unit, "45 %")
    torch.cuda.empty_cache()


@torch.no_grad()
def _sample(bandwidth: float) -> None:
    """The tokens of one image by the same transformer: from Python, as CUDA graph as in sampling, compiled."""
    network = models.build(BILLION, "model").to("cuda", torch.bfloat16).eval()
    text = torch.randint(network.vocab_size, (1, network.context_length), device="cuda")
    _, cache = network.prefill(text, 1)
    token = torch.zeros(1, 1, dtype=torch.int64, device="cuda")
    position = torch.zeros(1, dtype=torch.int64, device="cuda")
    bound = 2 * sum(p.numel() for p in network.parameters()) / bandwidth

    def plain() -> None:
        for at in range(TOKENS):
            network.step(token, at, cache)

    def replayed(step: Any) -> None:
        for at in range(TOKENS):
            position.fill_(at)
            token.copy_(step().argmax(-1))

    def one() -> torch.Tensor:
        return network.step(token, position, cache)

    for how, work in (
        ("", plain),
        (", recorded", partial(replayed, as_cuda_graph(one))),
        (", compiled", partial(replayed, as_cuda_graph(torch.compile(one)))),
    ):
        each = _seconds(work, 3) / TOKENS
        line("1B transformer samples", f"{each / bound:.1f} times the bound{how}", 1 / each, "tokens/s", "2 times")


def _seconds(work: Any, repeats: int = 5) -> float:
    def done() -> None:
        work()
        torch.cuda.synchronize()

    return seconds(done, repeats)
