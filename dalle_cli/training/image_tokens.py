"""Encoding the images of a run once, so that its dVAE does not run at every step."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from .. import checkpoint, distributed, migrations
from ..console import Progress
from ..data import loader
from ..exits import Failure
from ..files import make_folder, remove_temporary_files, write_atomically
from ..hardware.memory_meter import choose_batch_size
from ..models.dvae import DVAE
from .bad_samples import Bad
from .signals import Stop

FILE_SAMPLES = 8192  # samples in a file
BATCH_SIZE = 256  # images encoded at once, if they need no more than MEMORY_BUDGET
COMMON = ("val_samples", "num_workers", "max_bad_fraction", "require_captions")  # keys of `data` that tokens have too
MEMORY_BUDGET = 1 << 30  # bytes; not the free memory, so that a resumed run computes bit-identical tokens


def cache(
    recipe: dict, run: Path, codec: str, seed: int, layout: Any, progress: Callable[..., Progress], stop: Stop
) -> dict:
    """Encode every sample of a recipe's data once and return the `data` section that reads the image tokens.

    The tokens are kept in RUN/codes, in files of FILE_SAMPLES samples, each complete or absent; files that exist are
    not computed again. Every source of a mixture has a folder of its own, so that its validation samples stay separate
    and it has its own epochs; of a source with more samples than an epoch of the mixture takes, only those are encoded.
    codec: name of the frozen dVAE. The crops are those of the first epoch. The processes divide the files among them.

    Raises DataError for too many bad samples. Raises Failure when the folder holds tokens of another dVAE or of other
    data, and when the run is to stop: complete files stay, and the same command continues.
    """
    data, folder = recipe["data"], run / "codes"
    # Keys that change no token may differ when the same command continues.
    content = {
        key: value for key, value in data.items() if key not in ("val_samples", "num_workers", "max_bad_fraction")
    }
    crc = checkpoint.metadata(checkpoint.resolve(codec))["crc32"]
    about = json.dumps({"dvae": crc, "data": content, "seed": seed})
    sources = _sources(data, folder)
    note = folder / "about.json"
    if note.exists() and _content(note) != json.loads(about):
        raise Failure(f"{folder} holds image tokens of other data or of another dVAE; remove it, or use another --run")
    if layout.is_main_process:
        for source in sources:
            make_folder(source.folder, "--run")
            remove_temporary_files(source.folder)
        write_atomically(note, lambda path: path.write_text(about))
    missing = [file for source in sources for file in source.files() if not file.path.exists()]
    distributed.barrier()  # every process has listed the files before any writes
    mine = missing[layout.process_index :: layout.num_processes]
    if mine:
        dvae: Any = checkpoint.load(codec, "dvae").model
        dvae.to(layout.device, memory_format=torch.channels_last)
        bar = progress("encoding", sum(file.size for file in mine))
        size = (3, data["size"], data["size"])
        batch_size = choose_batch_size(
            lambda count: dvae.encode(torch.zeros(count, *size, device=layout.device)),
            BATCH_SIZE,
            BATCH_SIZE,
            MEMORY_BUDGET,
        )
        bad = Bad(sources[0].samples.loading.max_bad_fraction, run)
        for file in mine:
            if not stop.code:
                _encode(file, dvae, seed, layout, bar, stop, batch_size, bad)
        bar.close()
    (code,) = distributed.all_reduce_max([stop.code], layout.device)
    if code:
        raise Failure(f"stopped while encoding; the same command continues with {folder}", int(code))
    common = {key: data[key] for key in COMMON if key in data}
    nodes = [{"type": "image-tokens", "path": str(source.folder)} for source in sources]
    if data["type"] != "mixture":
        return {**nodes[0], "size": data["size"], **common}
    mixture = {key: data[key] for key in ("type", "weights", "samples") if key in data}
    return {**mixture, "sources": nodes, "size": data["size"], **common}


def _content(note: Path) -> Any:
    """Return what a cache was made of, with today's names of the keys of `data`."""
    content = json.loads(note.read_text())
    return migrations.to_version_2(content) if isinstance(content, dict) else content


@dataclass(frozen=True)
class _Source:
    """A source of the data; the tokens of its first `count` samples, in the order of the seed, are in `folder`."""

    folder: Path
    samples: loader.Data
    count: int

    def files(self) -> list["_File"]:
        starts = range(0, self.count, FILE_SAMPLES)
        return [_File(self, start, min(FILE_SAMPLES, self.count - start)) for start in starts]


@dataclass(frozen=True)
class _File:
    """A file of the tokens of `size` samples of a source, from sample `start`."""

    source: _Source
    start: int
    size: int

    @property
    def path(self) -> Path:
        return self.source.folder / f"codes-{self.start // FILE_SAMPLES:05d}.safetensors"


def _sources(data: dict, folder: Path) -> list[_Source]:
    whole = loader.build({**data, "val_samples": 0})
    if data["type"] != "mixture":
        return [_Source(folder, whole, whole.samples)]
    sources = []
    for number, (source, weight) in enumerate(zip(whole.sources, whole.weights)):
        samples = loader.Data(source, whole.loading)
        epoch = math.ceil(data["samples"] * weight / sum(whole.weights)) if data.get("samples") else samples.samples
        sources.append(_Source(folder / f"{number}", samples, min(samples.samples, epoch)))
    return sources


@torch.no_grad()
def _encode(
    file: _File, dvae: Any, seed: int, layout: Any, bar: Progress, stop: Stop, batch_size: int, bad: Bad
) -> None:
    assert isinstance(dvae, DVAE)
    tokens, texts, keys = [], [], []
    for batch in file.source.samples.train(batch_size, start=file.start, seed=seed, device=layout.device):
        bad.note(batch["bad"], len(batch["key"]), bar)
        with layout.autocast():
            images = batch["image"].contiguous(memory_format=torch.channels_last)
            tokens.append(dvae.encode(images).cpu().numpy().astype(np.uint16))
        texts += batch["text"]
        keys += batch["key"]
        bar.advance(len(batch["key"]))
        if stop.code:
            return
        if len(keys) >= file.size:
            break
    tensors = {"codes": np.concatenate(tokens)[: file.size]}
    for name, values in (("text", texts), ("key", keys)):
        tensors[name] = np.frombuffer(json.dumps(values[: file.size], ensure_ascii=False).encode(), dtype=np.uint8)
    write_atomically(file.path, lambda path: save_file(tensors, path))
