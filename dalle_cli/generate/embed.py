"""CLIP embeddings of pictures and captions, computed once and kept in files, for training priors and decoders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from .. import checkpoint, distributed
from ..data import loader
from ..exits import USAGE, WOULD_OVERWRITE, Failure
from ..files import make_folder, remove_left_overs, write_atomically
from ..nn.prepacked import packed
from ..systems.device import choose
from ..tasks import embedding

CHUNK = 8192  # samples in a file
BATCH = 256  # pictures embedded together
NOTE = "about.json"


@torch.no_grad()
def embed(
    out: Path,
    data: dict[str, Any],
    model: str,
    pictures: bool = False,
    limit: int | None = None,
    seed: int = 0,
    precision: str = "auto",
    watch: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Write the embeddings of a `data` section to files of CHUNK samples in the folder `out`; returns what they are.

    Files that are whole are not made again, so that the same command goes on; with another CLIP, other data or other
    options it is refused. Under a launcher of several processes the files are shared out. pictures: keep them too, at
    `data.size`, for decoders. limit: so many samples, the first of the seed's order. Raises CheckpointError, DataError,
    RecipeError, Failure.
    """
    device = choose(precision)
    data = loader.check(data)
    task: Any = device.load(model, "clip")
    samples = loader.build({**data, "validation": 0})
    count = min(limit or samples.samples, samples.samples)
    about = {"clip": checkpoint.metadata(checkpoint.resolve(model))["crc32"], "data": data, "seed": seed}
    _claim(out, {**about, "pictures": pictures, "samples": count})
    files = [out / f"embeddings-{number:05d}.safetensors" for number in range(-(-count // CHUNK))]
    rank, world = distributed.rank(), distributed.world_size()
    if world == 1:
        remove_left_overs(out)
    sizes = {
        number: min(CHUNK, count - number * CHUNK)
        for number, file in enumerate(files)
        if number % world == rank and not file.exists()
    }
    bad = loader.BadSamples(samples.loading.max_bad)
    done, total = 0, sum(sizes.values())
    for number, size in sizes.items():
        parts: dict[str, list] = {"image": [], "caption": [], "pictures": [], "text": [], "key": []}
        with device.autocast(), packed(task.model):
            for batch in samples.train(min(BATCH, size), start=number * CHUNK, seed=seed, device=device.name):
                bad.count(len(batch["key"]), batch["bad"])
                ids = embedding.pack(task.model, task.tokenizer, batch["text"])
                found = embedding.embed(task.model, batch["image"]), embedding.read(task.model, ids)[0]
                for name, one in zip(("image", "caption"), found):
                    parts[name].append(one.cpu().half().numpy())
                if pictures:
                    parts["pictures"].append(_pixels(batch["image"]))
                for name in ("text", "key"):
                    parts[name] += batch[name]
                watch("embedding", done + min(len(parts["key"]), size), total)
                if len(parts["key"]) >= size:
                    break
        _write(files[number], parts, size)
        done += size
    return {
        "path": str(out), "samples": count, "width": task.model.embed_dim, "files": len(files), "made": len(sizes),
        "replaced": bad.reasons.total(),
    }  # fmt: skip


def _claim(out: Path, about: dict[str, Any]) -> None:
    """Make the folder, or see that what it holds is of the same kind. Raises Failure."""
    note, text = out / NOTE, json.dumps(about)
    if out.exists() and not out.is_dir():
        raise Failure(f"{out} is a file: name a folder for the embeddings", USAGE)
    if note.exists():
        if note.read_text(encoding="utf-8") != text:
            raise Failure(
                f"{out} holds embeddings of other data, of another CLIP or with other options; name another folder",
                WOULD_OVERWRITE,
            )
        return
    # another process may be writing the note just now
    if out.exists() and any(path.name != NOTE and not path.name.startswith(".") for path in out.iterdir()):
        raise Failure(f"{out} holds other files; name another folder", WOULD_OVERWRITE)
    make_folder(out, "OUT")
    write_atomically(note, lambda path: path.write_text(text, encoding="utf-8"))


def _pixels(image: torch.Tensor) -> np.ndarray:
    """(B, 3, S, S) in [-1, 1] to uint8 (B, S, S, 3)."""
    return ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _write(file: Path, parts: dict[str, list], size: int) -> None:
    tensors = {
        name: np.ascontiguousarray(np.concatenate(parts[name])[:size])
        for name in ("image", "caption", "pictures")
        if parts[name]
    }
    for name in ("text", "key"):
        content = json.dumps(parts[name][:size], ensure_ascii=False).encode()
        tensors[name] = np.frombuffer(content, dtype=np.uint8)
    write_atomically(file, lambda path: save_file(tensors, path))
