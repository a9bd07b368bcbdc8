"""`dalle reconstruct`: what a dVAE or a VQGAN keeps of pictures (Ramesh et al. 2021, figure 1)."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .. import checkpoint, distributed, images
from ..console import Progress
from ..exits import BAD_INPUT, USAGE, Failure
from ..hardware.capabilities import free_memory
from ..hardware.memory_meter import SHARE, together
from ..recipe import type_of
from ..systems import device
from .metadata import Origin, digest
from .outputs import Outputs, Results
from .requests import PlannedImage, plan_images, read_requests
from .sheets import check_sheet, result_cells, save_grid

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
    requests = read_requests(expand_folders(pictures), plain_field="image", file_fields=("image",))
    if sheet:
        check_sheet(sheet, overwrite or skip_existing)
    outputs = Outputs(out, plan_images(requests), overwrite, skip_existing)
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
    progress = Progress("reconstruct", -(-len(outputs.todo) // distributed.world_size()), quiet=quiet)
    used: set[int] = set()
    ratios = []
    batch_size = together(
        lambda count: codec.decode(codec.encode(torch.zeros(count, 3, size, size, device=place.name))),
        len(outputs.todo), BATCH, int(SHARE * free_memory(place.name)),
    )  # fmt: skip
    many = min(distributed.all_gather_object(max(1, batch_size))) * distributed.world_size()

    def redrawn(items: list[PlannedImage]) -> Iterator[Redrawn | str]:
        """What became of each item's picture, or why nothing did."""
        found: list[torch.Tensor | str] = []
        for item in items:
            try:
                request = item.request
                found.append(
                    request.fields["error"]
                    if request.failed
                    else images.to_tensor(images.square(images.decode(request.fields["image"]), size))
                )
            except images.BadImage as error:
                found.append(str(error))
        batch = [one for one in found if isinstance(one, torch.Tensor)]
        drawn = iter(_redrawn(codec, place, torch.stack(batch)) if batch else ())
        progress.advance(len(batch))
        return (one if isinstance(one, str) else next(drawn) for one in found)

    for start in range(0, len(outputs.todo), many):
        group = outputs.todo[start : start + many]
        for item, found in zip(group, distributed.distributed_map(group, redrawn)):
            if isinstance(found, str):
                results.report(outputs.failed(item, found))
                continue
            ratios.append(found.psnr)
            used.update(found.codes)
            values = {"psnr": round(found.psnr, 2), "codes": len(set(found.codes))}
            results.report(outputs.save(item, found.pair, origin, **values))
    progress.close()
    if ratios:
        progress.note(
            f"{len(ratios)} pictures at {size} px: PSNR {sum(ratios) / len(ratios):.2f} dB on average, "
            f"{len(used)} of {codec.vocab_size} codes used ({len(used) / codec.vocab_size:.0%})"
        )
    if sheet:
        done = [one for one in results.reported if "error" not in one]
        save_grid(sheet, result_cells(done, lambda one: f"{Path(one['image']).name} · {one['psnr']:.1f} dB"))
    return results.finish()


@dataclass(frozen=True)
class Redrawn:
    """A picture above its reconstruction, the ratio of the two in dB, and the codes between them."""

    pair: Image.Image
    psnr: float
    codes: list[int]


@torch.no_grad()
def _redrawn(codec: Any, place: device.Device, original: torch.Tensor) -> Iterator[Redrawn]:
    with place.autocast():
        codes = codec.encode(original.to(place.name))
        drawn = codec.decode(codes).float().cpu()
    errors = ((original - drawn) / 2).pow(2).mean(dim=(1, 2, 3)).clamp(min=1e-10)
    for above, below, own, error in zip(original, drawn, codes, errors):
        pair = images.to_pil(torch.cat([above, below], dim=1))
        yield Redrawn(pair, -10 * error.log10().item(), own.flatten().tolist())


def expand_folders(words: Sequence[str]) -> list[str]:
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
