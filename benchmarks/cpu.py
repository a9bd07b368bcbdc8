"""Speeds on this machine's CPU, compared with its peak or with the naive implementation in the same run."""

import itertools
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from .stopwatch import line, seconds

SEED = 0


def matmul() -> None:
    """Matrix products of 2,048 cubed: the peak of the machine, in bf16 too if it is not emulated."""
    from dalle_cli.hardware.capabilities import has_fast_bf16

    for kind in (torch.float32, torch.bfloat16) if has_fast_bf16() else (torch.float32,):
        a, b = (torch.randn(2048, 2048).to(kind) for _ in range(2))
        each = seconds(partial(torch.mm, a, b))
        line("matrix product", str(kind).removeprefix("torch."), 2 * 2048**3 / each / 1e9, "GFLOP/s")


def start() -> None:
    """Time to the help, and to the file of an image; the first image token is sampled before that."""
    line("dalle --help", "", seconds(partial(_dalle, "--help")), "s", "0.3 s")
    with tempfile.TemporaryDirectory() as folder:
        sample = partial(_dalle, "sample", "a red apple", "--out", folder, "--overwrite")
        line("dalle sample", "from start to file", seconds(sample, 3), "s", "3 s to the first token")


def candidates() -> None:
    """`dalle sample` of 64 and 512 candidates, and of both with two processes on the cores of one."""
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        for ranks in (1, 2):
            for count in (64, 512):
                sample = ("sample", "an avocado chair", "--rerank", str(count), "--out", folder, "--overwrite", "-q")
                times[ranks, count] = seconds(partial(_dalle, *sample, ranks=ranks), 3)
    few, many, few_by_2, many_by_2 = times.values()
    line("sample --rerank 64", "", few, "s")
    line("sample --rerank 512", f"{many / few:.2f} times as long", many, "s", "4 times")
    ratio = (many - few) / (many_by_2 - few_by_2)
    line("with two processes", f"{ratio:.2f} times the throughput", many_by_2, "s", "1 time")


def _dalle(*words: str, ranks: int = 1) -> None:
    command = [sys.executable, "-m", *(["torch.distributed.run", "--nproc-per-node", str(ranks)] if ranks > 1 else [])]
    module = ["-m", "dalle_cli"] if ranks > 1 else ["dalle_cli"]
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // ranks))}
    subprocess.run([*command, *module, *words], capture_output=True, check=True, env=os.environ | threads)


def text() -> None:
    """Learn 16,384 entries from 100,000 captions, and encode 20,000 others, of a synthetic language."""
    from dalle_cli.text.learn import learn

    rng = random.Random(SEED)
    syllables = [a + b + c for a in "bdfgklmnprstvz" for b in "aeiou" for c in ("", "n", "r", "st")]
    words = ["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3, 4)))) for _ in range(40_000)]
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(len(words))))
    captions = [" ".join(rng.choices(words, cum_weights=weights, k=12)) for _ in range(120_000)]
    began = time.perf_counter()
    tokenizer = learn(captions[:100_000], 16_384, "dalle")
    line("learn a vocabulary", f"{tokenizer.vocab_size} entries", time.perf_counter() - began, "s", "120 s")
    began = time.perf_counter()
    tokens = sum(len(tokenizer.encode(caption)) for caption in captions[100_000:])
    line("encode captions", f"{tokens} tokens", tokens / (time.perf_counter() - began), "tokens/s", "200000 tokens/s")


def scenes() -> None:
    """Render training samples."""
    from dalle_cli.data.scenes import Scenes

    source = Scenes(64, "shapes")
    line("render scenes", "64 px", 500 / seconds(lambda: [source.read(0, i) for i in range(500)]), "images/s")


def sampling() -> None:
    """1,024 image tokens with the KV cache and by the naive loop: fraction of equal tokens, and speedup."""
    from dalle_cli.models.dalle import DALLE
    from dalle_cli.models.dvae import DVAE
    from dalle_cli.tasks.dalle import DALLETask
    from dalle_cli.text import tokenizers

    torch.manual_seed(SEED)
    tokenizer = tokenizers.build({"type": "dalle", "merges": []}, "tokenizer")
    model = DALLE(tokenizer.vocab_size, 64, 512, 32, width=128, depth=4, heads=2)
    dvae = DVAE(512, n_hid=8, n_init=8, groups=3, num_res_blocks=1)
    task = DALLETask(model, dvae, tokenizer).eval()
    seeds = [[1, 2]]
    tokens, times = [], []
    for generate in (task.sample, task.sample_without_cache):
        began = time.perf_counter()
        tokens.append(generate(["an avocado chair"], seeds))
        times.append(time.perf_counter() - began)
        line("1,024 image tokens", generate.__name__, 2 * 1024 / times[-1], "tokens/s")
    same = (tokens[0] == tokens[1]).float().mean().item()
    line("", f"{same:.2%} of the tokens equal", times[1] / times[0], "times faster", "20 times")


def training() -> None:
    """Training speed of the starter transformer, in bf16 if it is fast, and the fraction of the peak."""
    from dalle_cli import recipe
    from dalle_cli.hardware.capabilities import has_fast_bf16, keep_freed_memory
    from dalle_cli.models import models
    from dalle_cli.models.dalle import token_losses

    keep_freed_memory()
    kind = torch.bfloat16 if has_fast_bf16() else torch.float32
    a, b = (torch.randn(2048, 2048).to(kind) for _ in range(2))
    peak = 2 * 2048**3 / seconds(lambda: a @ b)
    torch.manual_seed(SEED)
    model = models.build(recipe.load("dalle1-starter", "prior")["model"], "model")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    text = torch.randint(model.vocab_size, (32, model.context_length))
    image = torch.randint(model.image_vocab_size, (32, model.grid_size**2))

    def step() -> None:
        with torch.autocast("cpu", kind, enabled=kind != torch.float32):
            logits = model(text, image)
            text_loss, image_loss = token_losses(*logits, text, image)
        (text_loss + 7 * image_loss).backward()
        optimizer.step()
        optimizer.zero_grad()

    each = seconds(step) / 32
    linear = sum(p.numel() for name, p in model.blocks.named_parameters() if p.dim() == 2)
    fraction = 6 * linear * (model.context_length + model.grid_size**2) / each / peak
    line("train the transformer", f"{fraction:.0%} of the peak", 1 / each, "samples/s")


def memory() -> None:
    """The largest batch of ViT-B/32 that fits in 20 GiB, and the measured memory of a smaller one."""
    batch, budget = 12, 20 << 30
    for checkpointing in (False, True):
        how = "activations recomputed" if checkpointing else "activations stored"
        largest = 512
        for _ in range(3):  # memory is almost linear in the batch
            parts = _estimated(checkpointing, largest)
            largest = int(largest * (budget - parts["total"] + parts["step"]) / parts["step"])
        estimate = _estimated(checkpointing, largest)["total"]
        line("ViT-B/32 in 20 GiB", how, largest, f"samples, estimated at {estimate / 2**30:.2f} GiB")
        estimated = _estimated(checkpointing, batch)["total"]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            measured = pool.apply(_real_steps, (checkpointing, batch))
        line(f"steps of {batch}, estimated", how, estimated / 2**30, "GiB")
        line("measured", f"{measured / estimated:.2f} of the estimate", measured / 2**30, "GiB")


def _estimated(checkpointing: bool, batch: int) -> dict[str, int]:
    """Return the estimated bytes of steps of ViT-B/32 in float32."""
    from dalle_cli import recipe
    from dalle_cli.training import estimate, optim
    from dalle_cli.training.compose_meta import compose_meta

    loaded = recipe.load("vit-b32", "clip", [f"model.gradient_checkpointing={checkpointing}"], complete=False)
    task = compose_meta(loaded, []).task
    (step,) = estimate.measure(task, batch, 224, "float32")
    return estimate.device_memory(task, optim.Optim(**loaded["optim"]), step, 1, "cpu")


def _real_steps(checkpointing: bool, batch: int) -> int:
    """Return the peak memory, in bytes, of a process that trains two steps."""
    from dalle_cli import checkpoint, recipe
    from dalle_cli.hardware.capabilities import keep_freed_memory, return_freed_memory
    from dalle_cli.training import optim
    from dalle_cli.training.ema import EMA

    loaded = recipe.load("vit-b32", "clip", [f"model.gradient_checkpointing={checkpointing}"], complete=False)
    return_freed_memory() if checkpointing else keep_freed_memory()
    task: Any = checkpoint.compose(loaded, SimpleNamespace(vocab_size=49408))
    average, optimizer = EMA(task.model, 0.999), optim.build(optim.Optim(**loaded["optim"]), task)
    for step in range(2):
        loss, _ = task(task.example(batch, 224), step)
        loss.backward()
        optimizer.step()
        average.update(task.model, step)
        optimizer.zero_grad()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def images() -> None:
    """Images of 256 px by the starter systems, from prompt to pixels, as `dalle sample` generates them."""
    from dalle_cli.systems.loading import resolve

    for name in ("glide", "unclip"):
        resolved = resolve(name)
        system: Any = resolved.load(resolved.choose_device())
        for count in (1, 16):
            generate = partial(system.generate, ["an avocado chair"], [range(count)], resolved.options, count)
            line(f"image by {name}", f"batch of {count}", seconds(generate, 1) / count, "s")


PARTS: dict[str, Callable[[], None]] = {
    "matmul": matmul,
    "start": start,
    "candidates": candidates,
    "text": text,
    "scenes": scenes,
    "sampling": sampling,
    "training": training,
    "memory": memory,
    "images": images,
}
