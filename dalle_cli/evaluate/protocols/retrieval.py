"""How well a CLIP matches images and captions."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch

from ...exits import BAD_INPUT, USAGE, Failure
from ...systems import device
from .. import samples
from ..protocol import Option, Result

EXAMPLES = ("dalle evaluate retrieval --model starter/clip", "dalle evaluate retrieval data.path=photos --pool-size 50")


@dataclass(frozen=True)
class Retrieval(Result):
    """R@1: how often the right one of `pool_size` captions, or images, has the highest similarity."""

    model: str
    num_samples: int
    pool_size: int
    image_to_text_r1: float
    text_to_image_r1: float

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(self)]

    def table(self) -> list[str]:
        return [
            f"{self.num_samples} images with captions, in pools of {self.pool_size}",
            f"image to text R@1: {self.image_to_text_r1:.1%}",
            f"text to image R@1: {self.text_to_image_r1:.1%}",
        ]


@torch.no_grad()
def retrieval(
    model: str = "starter/clip",
    data: Mapping[str, Any] | None = None,
    num_samples: Annotated[int, Option("Images with captions.", 2, 1_000_000, flags=("-n",))] = 1000,
    pool_size: Annotated[int, Option("Images, and captions, to choose from.", 2)] = 100,
    objects: str = "everyday",
    precision: str = "auto",
) -> Retrieval:
    """Measure how often CLIP ranks the right caption of an image first in a pool, and the right image of a caption.

    data: a `data` section; default: unseen built-in scenes with distinct captions. Samples that do not fill a pool are
    left out. Raises CheckpointError, RecipeError, DataError, Failure.
    """
    if num_samples < pool_size:
        raise Failure(f"--num-samples {num_samples} is below --pool-size {pool_size}: raise it", USAGE)
    place = device.choose(precision)
    task: Any = place.load(model, ("clip", "noised-clip"))
    pairs = samples.load(num_samples - num_samples % pool_size, task.model.visual.size, objects, data, distinct=True)
    if len(pairs) < pool_size:
        raise Failure(f"the data holds {len(pairs)} samples, fewer than --pool-size {pool_size}: lower it", BAD_INPUT)
    pairs = pairs[: len(pairs) - len(pairs) % pool_size]
    images, texts = [], []
    for start in range(0, len(pairs), pool_size):
        pool = pairs[start : start + pool_size]
        with place.autocast():
            images.append(task.embed_images(samples.batch([pair.image for pair in pool]).to(place.name)).cpu())
            texts.append(task.embed_texts([pair.caption for pair in pool]).cpu())
    similarity = torch.stack(images) @ torch.stack(texts).mT  # (pools, images, captions)
    diagonal = torch.arange(pool_size)
    image_to_text = (similarity.argmax(dim=2) == diagonal).float().mean().item()
    text_to_image = (similarity.argmax(dim=1) == diagonal).float().mean().item()
    return Retrieval(model, len(pairs), pool_size, image_to_text, text_to_image)
