"""How well an image tokenizer (a dVAE or a VQGAN) reconstructs images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch

from ... import checkpoint
from ...hardware.capabilities import free_memory
from ...hardware.memory_meter import MEMORY_FRACTION, choose_batch_size
from ...images import mse
from ...systems import device
from .. import samples
from ..protocol import Option, Result

EXAMPLES = ("dalle evaluate dvae -n 1000", "dalle evaluate dvae data.path=photos --model checkpoints/dvae-64")
MAX_BATCH = 64


@dataclass(frozen=True)
class Reconstruction(Result):
    """PSNR in dB, averaged over images and of the mean squared error; the fraction of the codebook that is used."""

    model: str
    num_images: int
    size: int
    psnr: float
    psnr_of_mean_mse: float
    codebook_usage: float

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(self)]

    def table(self) -> list[str]:
        return [
            f"{self.num_images} images at {self.size} px",
            f"PSNR {self.psnr:.2f} dB, averaged over images ({self.psnr_of_mean_mse:.2f} dB of the mean squared error)",
            f"codebook usage {self.codebook_usage:.1%}",
        ]


@torch.no_grad()
def dvae(
    model: str = "starter/dvae",
    data: Mapping[str, Any] | None = None,
    num_images: Annotated[int, Option("Images to reconstruct.", 1, 1_000_000, ("-n",))] = 1000,
    objects: str = "everyday",
    size: Annotated[int | None, Option("Side of the images in pixels. Default: as in training.", 8, 4096)] = None,
    precision: str = "auto",
) -> Reconstruction:
    """Measure how well a dVAE or VQGAN reconstructs images: PSNR and codebook usage.

    data: a `data` section; default: unseen built-in scenes. Raises CheckpointError, RecipeError, DataError.
    """
    place = device.choose(precision)
    tokenizer: Any = place.load(model, ("dvae", "vqgan")).model
    size = size or checkpoint.trained_image_size(checkpoint.resolve(model), 64)
    images = [sample.image for sample in samples.load(num_images, size, objects, data, captions=False)]
    errors, used = [], set()

    def reconstruct(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with place.autocast():
            tokens = tokenizer.encode(batch.to(place.name))
            return tokens.cpu(), tokenizer.decode(tokens).float().cpu()

    memory_budget = int(MEMORY_FRACTION * free_memory(place.name))
    batch_size = choose_batch_size(
        lambda count: reconstruct(torch.zeros(count, 3, size, size)), len(images), MAX_BATCH, memory_budget
    )
    for start in range(0, len(images), batch_size):
        batch = samples.batch(images[start : start + batch_size])
        tokens, reconstructed = reconstruct(batch)
        errors.append(mse(batch, reconstructed))
        used.update(tokens.flatten().tolist())
    error = torch.cat(errors)
    # not psnr_of_mse, whose factor before the mean rounds differently: figures stay those of earlier versions
    psnr, of_mean = -10 * error.log10().mean().item(), -10 * error.mean().log10().item()
    return Reconstruction(model, len(images), size, psnr, of_mean, len(used) / tokenizer.vocab_size)
