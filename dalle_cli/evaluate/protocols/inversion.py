"""How exactly DDIM inversion leads back to images (Dhariwal and Nichol 2021, appendix F)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from ... import images
from ...generate.ddim_inversion import DDIMInversion
from .. import samples
from ..generated import trained_positions
from ..protocol import Option, Progress, Result, Rows, silent
from ..recovered import PSNRs, psnrs

EXAMPLES = (
    "dalle evaluate inversion --recipe unclip -n 50 --steps 50",
    "dalle evaluate inversion data.path=photos --recipe glide",
)


@dataclass(frozen=True)
class Inversion(Result):
    """PSNR of images that were inverted to noise and sampled from it."""

    recipe: str
    num_images: int
    size: int
    steps: str
    inversion_iters: int
    figures: PSNRs
    rows: Rows
    sheet = True

    def to_json(self) -> list[dict[str, Any]]:
        setting = {"steps": self.steps, "inversion_iters": self.inversion_iters}
        return [{"recipe": self.recipe, "num_images": self.num_images, **setting, **self.figures.to_json()}]

    def table(self) -> list[str]:
        head = f"{self.num_images} images at {self.size} px, {self.steps} steps to the noise and as many back"
        return [head, str(self.figures)]


def inversion(
    recipe: Annotated[
        str, Option("System recipe, or the checkpoint of a decoder.", metavar="NAME|PATH", panel="Model")
    ] = "glide",
    data: Mapping[str, Any] | None = None,
    num_images: Annotated[int, Option("Images to invert.", 1, 1_000_000, ("-n",))] = 50,
    objects: str = "everyday",
    steps: Annotated[
        str, Option("Steps in each direction: a number (50), or a schedule (ddim50).", panel="Sampling")
    ] = "50",
    inversion_iters: Annotated[
        int, Option("Fixed-point iterations per inversion step; 0: plain DDIM inversion.", 0, 100, panel="Sampling")
    ] = 3,
    batch_size: int | None = None,
    precision: str = "auto",
    offload: bool = False,
    progress: Progress = silent,
) -> Inversion:
    """Invert images to noise by DDIM and sample them again: PSNR, and how many exceed 25 dB.

    data: a `data` section; default: unseen built-in scenes. Raises RecipeError, CheckpointError, DataError.
    """
    system = DDIMInversion(recipe, steps, precision, offload)
    if data:
        pairs = samples.from_data(data, num_images, system.size, captions=False)
    else:
        positions = trained_positions(system.name)
        pairs = list(samples.unseen(num_images, system.size, objects, distinct=True, random_positions=positions))
    before, texts = samples.batch([sample.image for sample in pairs]), [sample.caption for sample in pairs]
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        progress("inversion", done, len(pairs))

    after = system.reconstruct(before, texts, batch_size, inversion_iters, report)
    ratios = [images.psnr(one, other) for one, other in zip(before, after)]
    rows = [
        [(images.to_pil(one), "input"), (images.to_pil(other), f"{ratio:.1f} dB")]
        for one, other, ratio in zip(before, after, ratios)
    ]
    return Inversion(recipe, len(pairs), system.size, steps, inversion_iters, psnrs(ratios), rows)
