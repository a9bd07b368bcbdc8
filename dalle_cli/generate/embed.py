"""`dalle embed`: CLIP embeddings of images and captions, computed once and stored, to train priors and decoders on."""

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
from ..files import make_folder, remove_temporary_files, write_atomically
from ..models import embedding
from ..nn.prepacked import prepacked
from ..systems.device import choose

FILE_SAMPLES = 8192  # samples per file
BATCH = 256  # images embedded at once
MANIFEST = "about.json"
PIXELS = "pictures"  # the stored images in the format of the files


@torch.no_grad()
def embed(
    out: Path,
    data: dict[str, Any],
    model: str,
    store_images: bool = False,
    num_samples: int | None = None,
    seed: int = 0,
    precision: str = "auto",
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Write the embeddings of a `data` section to files of FILE_SAMPLES samples in a folder; returns a summary.

    Existing files are not computed again, so that the same command resumes; another CLIP, other data or other options
    are refused. Several processes divide the files among them. store_images: store the images too, at `data.size`,
    for decoders. num_samples: the first N in the order of the seed; default all. on_progress: called with a stage's
    name, samples done, and their total. Raises CheckpointError, DataError, RecipeError, Failure.
    """
    device = choose(precision)
    data = loader.check(data)
    task: Any = device.load(model, "clip")
    samples = loader.build({**data, "val_samples": 0})
    count = min(num_samples or samples.samples, samples.samples)
    manifest = {"clip": checkpoint.metadata(checkpoint.resolve(model))["crc32"], "data": data, "seed": seed}
    _claim(out, {**manifest, PIXELS: store_images, "samples": count})
    files = [out / f"embeddings-{number:05d}.safetensors" for number in range(-(-count // FILE_SAMPLES))]
    rank, world_size = distributed.rank(), distributed.world_size()
    if world_size == 1:
        remove_temporary_files(out)
    sizes = {
        number: min(FILE_SAMPLES, count - number * FILE_SAMPLES)
        for number, file in enumerate(files)
        if number % world_size == rank and not file.exists()
    }
    bad = loader.BadSamples(samples.loading.max_bad_fraction)
    done, total = 0, sum(sizes.values())
    for number, size in sizes.items():
        columns: dict[str, list] = {"image": [], "caption": [], PIXELS: [], "text": [], "key": []}
        with device.autocast(), prepacked(task.model):
            start = number * FILE_SAMPLES
            for batch in samples.train(min(BATCH, size), start=start, seed=seed, device=device.name):
                bad.count(len(batch["key"]), batch["bad"])
                _append(columns, task, batch, store_images)
                on_progress("embedding", done + min(len(columns["key"]), size), total)
                if len(columns["key"]) >= size:
                    break
        _write(files[number], columns, size)
        done += size
    return {
        "path": str(out), "num_samples": count, "embed_dim": task.model.embed_dim, "files_written": len(sizes),
        "bad_samples": bad.reasons.total(),
    }  # fmt: skip


def _append(columns: dict[str, list], task: Any, batch: dict[str, Any], store_images: bool) -> None:
    """Append the embeddings of a batch to the columns of a file."""
    ids = embedding.tokenize(task.model, task.tokenizer, batch["text"])
    columns["image"].append(embedding.embed_images(task.model, batch["image"]).cpu().half().numpy())
    columns["caption"].append(embedding.read_texts(task.model, ids)[0].cpu().half().numpy())
    if store_images:
        columns[PIXELS].append(_uint8(batch["image"]))
    for name in ("text", "key"):
        columns[name] += batch[name]


def _claim(out: Path, manifest: dict[str, Any]) -> None:
    """Create the folder, or check that it holds the same kind of embeddings. Raises Failure."""
    file, text = out / MANIFEST, json.dumps(manifest)
    if out.exists() and not out.is_dir():
        raise Failure(f"{out} is a file: name a folder for the embeddings", USAGE)
    if file.exists():
        if file.read_text(encoding="utf-8") != text:
            raise Failure(
                f"{out} holds embeddings of other data, of another CLIP or with other options: name another folder",
                WOULD_OVERWRITE,
            )
        return
    # another process may be writing the manifest at this moment
    if out.exists() and any(path.name != MANIFEST and not path.name.startswith(".") for path in out.iterdir()):
        raise Failure(f"{out} holds other files: name another folder", WOULD_OVERWRITE)
    make_folder(out, "--out")
    write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))


def _uint8(image: torch.Tensor) -> np.ndarray:
    """Convert (B, 3, S, S) in [-1, 1] to uint8 (B, S, S, 3)."""
    return ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _write(file: Path, columns: dict[str, list], size: int) -> None:
    tensors = {
        name: np.ascontiguousarray(np.concatenate(columns[name])[:size])
        for name in ("image", "caption", PIXELS)
        if columns[name]
    }
    for name in ("text", "key"):
        content = json.dumps(columns[name][:size], ensure_ascii=False).encode()
        tensors[name] = np.frombuffer(content, dtype=np.uint8)
    write_atomically(file, lambda path: save_file(tensors, path))


def image_size(model: str) -> int:
    """Return the side in pixels of the images that a CLIP checkpoint reads, 224 where it is not in the recipe."""
    recipe = checkpoint.metadata(checkpoint.resolve(model))["recipe"]
    network = recipe.get("model")
    return network.get("image", {}).get("size", 224) if isinstance(network, dict) else 224
