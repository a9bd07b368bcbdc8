"""Encoding a run's pictures once, so that its dVAE does not run at every step."""

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

CHUNK = 8192  # samples in a file
BATCH = 256  # pictures encoded together, where they hold no more than ROOM
COMMON = (
    "val_samples",
    "num_workers",
    "max_bad_fraction",
    "require_captions",
)  # keys of `data` that hold for codes as well
ROOM = 1 << 30  # bytes; not what is free, so that a run that goes on finds the same codes to the last bit


def cache(
    recipe: dict, run: Path, codec: str, seed: int, layout: Any, progress: Callable[..., Progress], stop: Stop
) -> dict:
    """Encode every sample of a recipe's data once; returns the `data` section that reads the codes.

    They are kept in RUN/codes, a file for every CHUNK samples, each whole or not there; what is there already is not
    made again. Of a mixture every source has a folder of its own, so that validation stays apart and each goes through
    its own epochs; of one longer than the mixture's share of `samples`, the first that an epoch meets are encoded.
    codec: the name of the frozen dVAE. The crops are those of the run's first epoch. The files are shared out among the
    processes. Raises DataError for too many bad samples, and Failure when the folder holds codes of another dVAE or of
    other data, and when the run is to stop: files that are whole stay, so that the same command goes on.
    """
    data, folder = recipe["data"], run / "codes"
    # what changes no code may differ when the same command goes on
    content = {
        key: value for key, value in data.items() if key not in ("val_samples", "num_workers", "max_bad_fraction")
    }
    crc = checkpoint.metadata(checkpoint.resolve(codec))["crc32"]
    about = json.dumps({"dvae": crc, "data": content, "seed": seed})
    sources = _sources(data, folder)
    note = folder / "about.json"
    if note.exists() and _content(note) != json.loads(about):
        raise Failure(f"{folder} holds codes of other data or of another dVAE; remove it, or choose another --run")
    if layout.is_main_process:
        for source in sources:
            make_folder(source.folder, "--run")
            remove_temporary_files(source.folder)
        write_atomically(note, lambda path: path.write_text(about))
    missing = [file for source in sources for file in source.files() if not file.path.exists()]
    distributed.barrier()  # every process has listed the files before any writes
    own = missing[layout.process_index :: layout.num_processes]
    if own:
        dvae: Any = checkpoint.load(codec, "dvae").model
        dvae.to(layout.device, memory_format=torch.channels_last)
        shown = progress("encoding", sum(file.size for file in own))
        size = (3, data["size"], data["size"])
        batch = choose_batch_size(
            lambda count: dvae.encode(torch.zeros(count, *size, device=layout.device)), BATCH, BATCH, ROOM
        )
        bad = Bad(sources[0].samples.loading.max_bad_fraction, run)
        for file in own:
            if not stop.code:
                _encode(file, dvae, seed, layout, shown, stop, batch, bad)
        shown.close()
    (code,) = distributed.all_reduce_max([stop.code], layout.device)
    if code:
        raise Failure(f"stopped while encoding; the same command goes on from what is in {folder}", int(code))
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
    """One source of the data, of which the first `count` samples of the seed's order are kept in `folder`."""

    folder: Path
    samples: loader.Data
    count: int

    def files(self) -> list["_File"]:
        starts = range(0, self.count, CHUNK)
        return [_File(self, start, min(CHUNK, self.count - start)) for start in starts]


@dataclass(frozen=True)
class _File:
    """`size` samples of a source from `start` on, and where their codes are kept."""

    source: _Source
    start: int
    size: int

    @property
    def path(self) -> Path:
        return self.source.folder / f"codes-{self.start // CHUNK:05d}.safetensors"


def _sources(data: dict, folder: Path) -> list[_Source]:
    whole = loader.build({**data, "val_samples": 0})
    if data["type"] != "mixture":
        return [_Source(folder, whole, whole.samples)]
    found = []
    for number, (source, share) in enumerate(zip(whole.sources, whole.shares)):
        one = loader.Data(source, whole.loading)
        epoch = math.ceil(data["samples"] * share / sum(whole.shares)) if data.get("samples") else one.samples
        found.append(_Source(folder / f"{number}", one, min(one.samples, epoch)))
    return found


@torch.no_grad()
def _encode(
    file: _File, dvae: Any, seed: int, layout: Any, shown: Progress, stop: Stop, batch_size: int, bad: Bad
) -> None:
    assert isinstance(dvae, DVAE)
    codes, texts, keys = [], [], []
    for batch in file.source.samples.train(batch_size, start=file.start, seed=seed, device=layout.device):
        bad.note(batch["bad"], len(batch["key"]), shown)
        with layout.autocast():
            pictures = batch["image"].contiguous(memory_format=torch.channels_last)
            codes.append(dvae.encode(pictures).cpu().numpy().astype(np.uint16))
        texts += batch["text"]
        keys += batch["key"]
        shown.advance(len(batch["key"]))
        if stop.code:
            return
        if len(keys) >= file.size:
            break
    tensors = {"codes": np.concatenate(codes)[: file.size]}
    for name, values in (("text", texts), ("key", keys)):
        tensors[name] = np.frombuffer(json.dumps(values[: file.size], ensure_ascii=False).encode(), dtype=np.uint8)
    write_atomically(file.path, lambda path: save_file(tensors, path))
