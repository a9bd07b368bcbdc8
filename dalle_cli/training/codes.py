"""Encoding a run's pictures once, so that its dVAE does not run at every step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from .. import checkpoint
from ..data import loader
from ..exits import Failure
from ..files import remove_left_overs, write_atomically
from ..models.dvae import DVAE
from ..nn.meter import together
from ..trackers import Progress
from . import ranks
from .signals import Stop

CHUNK = 8192  # samples in a file
BATCH = 256  # pictures encoded together, where they hold no more than ROOM
ROOM = 1 << 30  # bytes; not what is free, so that a run that goes on finds the same codes to the last bit


def cache(
    recipe: dict, folder: Path, codec: str, seed: int, layout: Any, progress: Callable[..., Progress], stop: Stop
) -> dict:
    """Encode every sample of a recipe's data once; returns the `data` section that reads the codes.

    folder: where they are kept, a file for every CHUNK samples, each whole or not there; what is there already is not
    made again. codec: the name of the frozen dVAE. The crops are those of the run's first epoch. The files are shared
    out among the processes. Raises Failure when the folder holds codes of another dVAE or of other data, and when the
    run is to stop: files that are whole stay, so that the same command goes on.
    """
    data = recipe["data"]
    about = json.dumps({"dvae": checkpoint.metadata(checkpoint.resolve(codec))["crc32"], "data": data, "seed": seed})
    samples = loader.build({**data, "validation": 0})
    note = folder / "about.json"
    if note.exists() and note.read_text() != about:
        raise Failure(f"{folder} holds codes of other data or of another dVAE; remove it, or choose another --run")
    if layout.is_main_process:
        remove_left_overs(folder)
        write_atomically(note, lambda path: path.write_text(about))
    count = -(-samples.samples // CHUNK)
    missing = [number for number in range(count) if not _file(folder, number).exists()]
    ranks.agree([0], layout)  # all have looked before any writes
    own = missing[layout.process_index :: layout.num_processes]
    if own:
        dvae: Any = checkpoint.load(codec, "dvae").model
        dvae.to(layout.device, memory_format=torch.channels_last)
        shown = progress("encoding", len(own) * CHUNK)
        size = (3, data["size"], data["size"])
        batch = together(lambda count: dvae.encode(torch.zeros(count, *size, device=layout.device)), BATCH, BATCH, ROOM)
        for number in own:
            if not stop.code:
                _encode(samples, dvae, folder, number, seed, layout, shown, stop, batch)
        shown.close()
    (code,) = ranks.agree([stop.code], layout)
    if code:
        raise Failure(f"stopped while encoding; the same command goes on from what is in {folder}", int(code))
    common = {key: data[key] for key in ("validation", "workers", "max_bad", "captions") if key in data}
    return {"type": "codes", "path": str(folder), "size": data["size"], **common}


@torch.no_grad()
def _encode(
    samples: loader.Data, dvae: Any, folder: Path, number: int, seed: int, layout: Any, shown: Progress, stop: Stop,
    batch_size: int,
) -> None:  # fmt: skip
    assert isinstance(dvae, DVAE)
    start = number * CHUNK
    size = min(CHUNK, samples.samples - start)
    codes, texts, keys = [], [], []
    for batch in samples.train(batch_size, start=start, seed=seed, device=layout.device):
        with layout.autocast():
            pictures = batch["image"].contiguous(memory_format=torch.channels_last)
            codes.append(dvae.encode(pictures).cpu().numpy().astype(np.uint16))
        texts += batch["text"]
        keys += batch["key"]
        shown.advance(len(batch["key"]))
        if stop.code:
            return
        if len(keys) >= size:
            break
    tensors = {"codes": np.concatenate(codes)[:size]}
    for name, values in (("text", texts), ("key", keys)):
        tensors[name] = np.frombuffer(json.dumps(values[:size], ensure_ascii=False).encode(), dtype=np.uint8)
    write_atomically(_file(folder, number), lambda path: save_file(tensors, path))


def _file(folder: Path, number: int) -> Path:
    return folder / f"codes-{number:05d}.safetensors"
