"""What `make bench` prints: our speed beside the limit or the slow way, in the same run on the same machine.

python -m tests.bench            all of it, some ten minutes on two cores
python -m tests.bench sampling   a part of it
"""

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

from tests import bench_gpu, bench_peers
from tests.stopwatch import line, seconds

SEED = 0


def matmul() -> None:
    """Matrix products of 2,048 cubed: what the machine can do, in bf16 where that is not made up of other steps."""
    from dalle_cli.hardware.capabilities import fast_bf16

    for kind in (torch.float32, torch.bfloat16) if fast_bf16() else (torch.float32,):
        a, b = (torch.randn(2048, 2048).to(kind) for _ in range(2))
        each = seconds(partial(torch.mm, a, b))
        line("matrix product", str(kind).removeprefix("torch."), 2 * 2048**3 / each / 1e9, "GFLOP/s")


def start() -> None:
    """How soon the help is there, and how soon a picture, whose first code is drawn before that."""
    line("dalle --help", "", seconds(partial(_dalle, "--help")), "s", "0.3 s")
    with tempfile.TemporaryDirectory() as folder:
        draw = partial(_dalle, "sample", "a red apple", "--out", folder, "--overwrite")
        line("dalle sample", "from start to file", seconds(draw, 3), "s", "3 s to the first code")


def candidates() -> None:
    """`dalle sample` of 64 and of 512 candidates, and of these by two processes on the cores of one."""
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        for ranks in (1, 2):
            for count in (64, 512):
                sample = ("sample", "an avocado chair", "--rerank", str(count), "--out", folder, "--overwrite", "-q")
                times[ranks, count] = seconds(partial(_dalle, *sample, ranks=ranks), 3)
    few, many, few_by_two, many_by_two = times.values()
    line("sample --rerank 64", "", few, "s")
    line("sample --rerank 512", f"{many / few:.2f} times as long", many, "s", "4 times")
    ratio = (many - few) / (many_by_two - few_by_two)
    line("by two processes", f"{ratio:.2f} times as fast from there", many_by_two, "s", "1 time")


def _dalle(*words: str, ranks: int = 1) -> None:
    command = [sys.executable, "-m", *(["torch.distributed.run", "--nproc-per-node", str(ranks)] if ranks > 1 else [])]
    module = ["-m", "dalle_cli"] if ranks > 1 else ["dalle_cli"]
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // ranks))}
    subprocess.run([*command, *module, *words], capture_output=True, check=True, env=os.environ | threads)


def text() -> None:
    """Learning 16,384 entries from 100,000 captions, and encoding 20,000 others of the same made-up language."""
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
    """Drawing training samples."""
    from dalle_cli.data.scenes import Scenes

    source = Scenes(64, "shapes")
    line("draw scenes", "64 px", 500 / seconds(lambda: [source.read(0, i) for i in range(500)]), "pictures/s")


def sampling() -> None:
    """1,024 image codes with a cache and by the naive loop: equal codes, and how much sooner."""
    from dalle_cli.models.dalle import DALLE
    from dalle_cli.models.dvae import DVAE
    from dalle_cli.tasks.dalle import DALLETask
    from dalle_cli.text import tokenizers

    torch.manual_seed(SEED)
    tokenizer = tokenizers.build({"type": "dalle", "merges": []}, "tokenizer")
    model = DALLE(tokenizer.vocab_size, 64, 512, 32, width=128, depth=4, heads=2)
    dvae = DVAE(512, hidden=8, init=8, groups=3, blocks=1)
    task = DALLETask(model, dvae, tokenizer).eval()
    seeds = [[1, 2]]
    found, times = [], []
    for way in (task.draw, task.draw_naively):
        began = time.perf_counter()
        found.append(way(["an avocado chair"], seeds))
        times.append(time.perf_counter() - began)
        line("1,024 image codes", way.__name__, 2 * 1024 / times[-1], "codes/s")
    same = (found[0] == found[1]).float().mean().item()
    line("", f"{same:.2%} of the codes equal", times[1] / times[0], "times sooner", "20 times")


def training() -> None:
    """Samples a second in training the starters' networks, bf16 where it is fast, and the share of the limit."""
    from dalle_cli import recipe
    from dalle_cli.hardware.capabilities import fast_bf16, keep_memory
    from dalle_cli.models import models
    from dalle_cli.models.dalle import loss

    keep_memory()
    kind = torch.bfloat16 if fast_bf16() else torch.float32
    a, b = (torch.randn(2048, 2048).to(kind) for _ in range(2))
    limit = 2 * 2048**3 / seconds(lambda: a @ b)
    torch.manual_seed(SEED)
    model = models.build(recipe.load("dalle1-starter", "prior")["model"], "model")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    words = torch.randint(model.vocab_size, (32, model.context_length))
    codes = torch.randint(model.image_vocab_size, (32, model.grid_size**2))

    def step() -> None:
        with torch.autocast("cpu", kind, enabled=kind != torch.float32):
            scores = model(words, codes)
            text_loss, image_loss = loss(*scores, words, codes)
        (text_loss + 7 * image_loss).backward()
        optimizer.step()
        optimizer.zero_grad()

    each = seconds(step) / 32
    linear = sum(p.numel() for name, p in model.blocks.named_parameters() if p.dim() == 2)
    share = 6 * linear * (model.context_length + model.grid_size**2) / each / limit
    line("train the transformer", f"{share:.0%} of the limit", 1 / each, "samples/s")


def memory() -> None:
    """The largest batch of ViT-B/32 that 20 GiB of this machine hold, and real steps of a smaller one beside it."""
    batch, room = 12, 20 << 30
    for checkpointing in (False, True):
        how = "activations recomputed" if checkpointing else "activations kept"
        largest = 512
        for _ in range(3):  # memory is nearly a line
            parts = _estimated(checkpointing, largest)
            largest = int(largest * (room - parts["total"] + parts["step"]) / parts["step"])
        held = _estimated(checkpointing, largest)["total"]
        line("ViT-B/32 in 20 GiB", how, largest, f"samples, which hold {held / 2**30:.2f} GiB")
        estimated = _estimated(checkpointing, batch)["total"]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            measured = pool.apply(_real_steps, (checkpointing, batch))
        line(f"steps of {batch}, estimated", how, estimated / 2**30, "GiB")
        line("measured", f"{measured / estimated:.2f} of the estimate", measured / 2**30, "GiB")


def _estimated(checkpointing: bool, batch: int) -> dict[str, int]:
    """Bytes that steps of ViT-B/32 in float32 hold here."""
    from dalle_cli import recipe
    from dalle_cli.training import estimate, optim
    from dalle_cli.training.compose_meta import compose_meta

    found = recipe.load("vit-b32", "clip", [f"model.gradient_checkpointing={checkpointing}"], complete=False)
    task = compose_meta(found, []).task
    (step,) = estimate.measure(task, batch, 224, "float32")
    return estimate.device_memory(task, optim.Optim(**found["optim"]), step, 1, "cpu")


def _real_steps(checkpointing: bool, batch: int) -> int:
    """Bytes that a process holds at most which trains two steps."""
    from dalle_cli import checkpoint, recipe
    from dalle_cli.hardware.capabilities import keep_memory, return_memory
    from dalle_cli.training import optim
    from dalle_cli.training.ema import EMA

    found = recipe.load("vit-b32", "clip", [f"model.gradient_checkpointing={checkpointing}"], complete=False)
    return_memory() if checkpointing else keep_memory()
    task: Any = checkpoint.compose(found, SimpleNamespace(vocab_size=49408))
    average, optimizer = EMA(task.model, 0.999), optim.build(optim.Optim(**found["optim"]), task)
    for step in range(2):
        loss, _ = task(task.example(batch, 224), step)
        loss.backward()
        optimizer.step()
        average.update(task.model, step)
        optimizer.zero_grad()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def pictures() -> None:
    """Pictures of 256 px by the starter systems, from a prompt to pixels, as `dalle sample` draws them."""
    from dalle_cli.generate.sample import load_system, prepare
    from dalle_cli.systems import device, systems

    for name in ("glide", "unclip"):
        found = load_system(name)
        _, parts, options = prepare(found, {})
        parts.pop("clip")  # which chooses, and draws nothing
        system: Any = systems.build(found["system"], "system", device=device.choose(), **parts)
        for count in (1, 16):
            draw = partial(system.draw, ["an avocado chair"], [range(count)], options, count)
            line(f"a picture by {name}", f"of {count} together", seconds(draw, 1) / count, "s")


PARTS: dict[str, Callable[[], None]] = {
    "matmul": matmul,
    "start": start,
    "candidates": candidates,
    "text": text,
    "scenes": scenes,
    "sampling": sampling,
    "training": training,
    "memory": memory,
    "pictures": pictures,
    "gpu": bench_gpu.run,
    **{name: partial(bench_peers.run, name) for name in bench_peers.PARTS},
}


if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - set(PARTS)
    if unknown:
        sys.exit(f"no bench called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
