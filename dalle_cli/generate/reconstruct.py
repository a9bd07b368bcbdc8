"""`dalle reconstruct`: what a dVAE or a VQGAN keeps of pictures (Ramesh et al. 2021, figure 1)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .. import checkpoint, images
from ..exits import BAD_INPUT, USAGE, Failure
from ..nn.hardware import free_memory
from ..nn.meter import SHARE, together
from ..recipe import type_of
from ..trackers import Progress
from . import device
from .metadata import Origin, digest
from .outputs import Outputs, Results, check_sheet
from .prompts import gather, plan

CODECS = ("dvae", "vqgan")  # models that turn pictures into codes and back
BATCH = 32  # pictures coded together, where memory allows
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def reconstruct(
    pictures: Sequence[str], model: str, size: int | None, out: str, sheet: str | None, overwrite: bool,
    skip_existing: bool, as_json: bool, quiet: bool, precision: str,
) -> int:  # fmt: skip
    """Write each picture's square above its reconstruction; returns the exit code.

    Results have `psnr` in dB, and `codes`, how many different ones the picture takes; the last line on standard error
    sums up.
    """
    requests = gather(expand(pictures), plain="image", pictures=("image",))
    if sheet:
        check_sheet(sheet, overwrite or skip_existing)
    outputs = Outputs(out, plan(requests), overwrite, skip_existing)
    results = Results(as_json, ("index", "psnr", "codes", "path", "image"))
    for result in outputs.skipped:
        results.report(result)
    place = device.choose(precision)
    path = checkpoint.resolve(model)
    kind = str(type_of(checkpoint.metadata(path)["recipe"], "model"))
    codec: Any = checkpoint.load(model, CODECS).model.to(place.name)
    size = size or checkpoint.pixels(path, 256)
    if size % codec.factor:
        raise Failure(f"--size {size}: not a multiple of {codec.factor}, the side of a code's place", USAGE)
    origin = Origin("reconstruct", model, {"size": size}, {kind: digest(path)})
    progress = Progress("reconstruct", len(outputs.todo), quiet=quiet)
    used: set[int] = set()
    rows: list[Image.Image] = []
    ratios = []
    batch_size = together(
        lambda count: codec.decode(codec.encode(torch.zeros(count, 3, size, size, device=place.name))),
        len(outputs.todo), BATCH, int(SHARE * free_memory(place.name)),
    )  # fmt: skip
    for start in range(0, len(outputs.todo), max(1, batch_size)):
        items, batch = [], []
        for item in outputs.todo[start : start + batch_size]:
            if item.request.failed:
                results.report(outputs.failed(item, item.request.fields["error"]))
                continue
            try:
                batch.append(images.to_tensor(images.square(images.decode(item.request.fields["image"]), size)))
                items.append(item)
            except images.BadPicture as error:
                results.report(outputs.failed(item, error))
        if not items:
            continue
        original = torch.stack(batch)
        with torch.no_grad(), place.autocast():
            codes = codec.encode(original.to(place.name))
            redrawn = codec.decode(codes).float().cpu()
        errors = ((original - redrawn) / 2).pow(2).mean(dim=(1, 2, 3)).clamp(min=1e-10)
        for item, above, below, own, error in zip(items, original, redrawn, codes, errors):
            pair = images.to_pil(torch.cat([above, below], dim=1))
            psnr = -10 * error.log10().item()
            ratios.append(psnr)
            used.update(own.flatten().tolist())
            results.report(outputs.save(item, pair, origin, psnr=round(psnr, 2), codes=own.unique().numel()))
            rows.append(pair)
        progress.advance(len(items))
    progress.close()
    if ratios:
        progress.note(
            f"{len(ratios)} pictures at {size} px: PSNR {sum(ratios) / len(ratios):.2f} dB on average, "
            f"{len(used)} of {codec.vocab} codes used ({len(used) / codec.vocab:.0%})"
        )
    if sheet and rows:
        images.save_png(images.sheet(rows, columns=min(len(rows), 16)), sheet)
    return results.finish()


def expand(words: Sequence[str]) -> list[str]:
    """Folders replaced by the pictures in them, sorted; other words as they are."""
    found: list[str] = []
    for word in words:
        if os.path.isdir(word):  # a long JSON line is no file name, which Path would raise about
            inside = sorted(str(path) for path in Path(word).rglob("*") if path.suffix.lower() in SUFFIXES)
            if not inside:
                raise Failure(f"{word}: no pictures in this folder ({', '.join(SUFFIXES)})", BAD_INPUT)
            found += inside
        else:
            found.append(word)
    return found
