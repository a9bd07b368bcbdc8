"""`dalle reconstruct`: images encoded by a dVAE or VQGAN and decoded again (Ramesh et al. 2021, figure 1)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .. import checkpoint, console, distributed, images
from ..console import Progress
from ..exits import DONE, USAGE, Failure
from ..hardware.capabilities import free_memory
from ..hardware.memory_meter import MEMORY_FRACTION, choose_batch_size
from ..recipe import type_of
from ..systems import device
from .image_requests import read_image_requests
from .metadata import Origin, digest
from .options import GenerationOptions
from .outputs import Collected, Outputs, Results
from .requests import PlannedImage, plan_images
from .sheets import check_sheet, result_cells, save_grid

IMAGE_TOKENIZERS = ("dvae", "vqgan")  # types of models that encode images to tokens and decode them
DEFAULTS = GenerationOptions()
BATCH = 32  # images at once, where memory allows


def reconstruct(
    paths: Sequence[str],
    model: str = "starter/dvae",
    size: int | None = None,
    options: GenerationOptions = DEFAULTS,
    results: Collected | None = None,
) -> int:
    """Write the middle square of each image above its reconstruction; returns the exit code.

    size: pixels of the square, default those of training. Results have `psnr` in dB and `unique_tokens`, the number of
    different image tokens; a last line on standard error summarizes them. Raises Failure, PromptError, CheckpointError.
    """
    requests = read_image_requests(paths)
    if options.dry_run:
        console.log(f"model: {checkpoint.resolve(model)}\n{len(requests)} files in {options.out}")
        return DONE
    if options.sheet:
        check_sheet(options.sheet, options.may_replace)
    outputs = Outputs(options.out, plan_images(requests), options.overwrite, options.skip_existing)
    results = results or Results(options.json, ("index", "psnr", "unique_tokens", "path", "image"))
    for result in outputs.skipped:
        results.report(result)
    path = checkpoint.resolve(model)
    target = device.choose(options.precision)
    tokenizer: Any = checkpoint.load(model, IMAGE_TOKENIZERS).model.to(target.name)
    size = size or checkpoint.trained_image_size(path, 256)
    if size % tokenizer.factor:
        raise Failure(f"--size {size}: give a multiple of {tokenizer.factor}, the side of an image token", USAGE)
    kind = str(type_of(checkpoint.metadata(path)["recipe"], "model"))
    origin = Origin("reconstruct", model, {"size": size}, {kind: digest(path)})
    progress = Progress("reconstruct", -(-len(outputs.todo) // distributed.world_size()), quiet=options.quiet)
    batch_size = options.batch_size or choose_batch_size(
        lambda count: tokenizer.decode(tokenizer.encode(torch.zeros(count, 3, size, size, device=target.name))),
        len(outputs.todo), BATCH, int(MEMORY_FRACTION * free_memory(target.name)),
    )  # fmt: skip
    used: set[int] = set()
    ratios: list[float] = []
    for item, outcome in _reconstructions(outputs.todo, tokenizer, target, size, batch_size, progress):
        if isinstance(outcome, str):
            results.report(outputs.failed(item, outcome))
            continue
        ratios.append(outcome.psnr)
        used.update(outcome.tokens)
        details = {"psnr": round(outcome.psnr, 2), "unique_tokens": len(set(outcome.tokens))}
        results.report(outputs.save(item, outcome.pair, origin, **details))
    progress.close()
    if ratios:
        vocab_size = tokenizer.vocab_size
        progress.note(
            f"{len(ratios)} images at {size} px: mean PSNR {sum(ratios) / len(ratios):.2f} dB, "
            f"{len(used)} of {vocab_size} tokens used ({len(used) / vocab_size:.0%})"
        )
    if options.sheet:
        done = [result for result in results.reported if "error" not in result]
        save_grid(
            options.sheet, result_cells(done, lambda result: f"{Path(result['image']).name} · {result['psnr']:.1f} dB")
        )
    return results.finish()


@dataclass(frozen=True)
class Reconstruction:
    """An image above its reconstruction, the PSNR between the two in dB, and the image tokens."""

    pair: Image.Image
    psnr: float
    tokens: list[int]


def _reconstructions(
    todo: Sequence[PlannedImage], tokenizer: Any, target: device.Device, size: int, batch_size: int, progress: Progress
) -> Iterator[tuple[PlannedImage, Reconstruction | str]]:
    """Yield each planned image with its reconstruction, or with the reason why there is none."""

    def reconstruct_batch(batch: list[PlannedImage]) -> Iterator[Reconstruction | str]:
        squares = [_square(item, size) for item in batch]
        pixels = [square for square in squares if isinstance(square, torch.Tensor)]
        done = iter(_reconstruct(tokenizer, target, torch.stack(pixels)) if pixels else ())
        progress.advance(len(pixels))
        return (square if isinstance(square, str) else next(done) for square in squares)

    step = min(distributed.all_gather_object(max(1, batch_size))) * distributed.world_size()
    for start in range(0, len(todo), step):
        batch = todo[start : start + step]
        yield from zip(batch, distributed.distributed_map(batch, reconstruct_batch))


def _square(item: PlannedImage, size: int) -> torch.Tensor | str:
    """Return the middle square of an image, or the reason why it cannot be read."""
    if item.request.failed:
        return item.request.fields["error"]
    try:
        return images.to_tensor(images.square(images.open_image(item.request.fields["image"]), size))
    except images.BadImage as error:
        return str(error)


@torch.no_grad()
def _reconstruct(tokenizer: Any, target: device.Device, originals: torch.Tensor) -> Iterator[Reconstruction]:
    with target.autocast():
        tokens = tokenizer.encode(originals.to(target.name))
        decoded = tokenizer.decode(tokens).float().cpu()
    for original, reconstruction, image_tokens in zip(originals, decoded, tokens):
        pair = images.to_pil(torch.cat([original, reconstruction], dim=1))
        yield Reconstruction(pair, images.psnr(original, reconstruction), image_tokens.flatten().tolist())
