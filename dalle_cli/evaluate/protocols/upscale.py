"""Whether an upsampler is closer to the true image than bicubic interpolation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from torch import Tensor

from ...data.bsr_degradation import degrade
from ...data.degradations import downsample
from ...exits import USAGE, Failure
from ...generate.outputs import Collected
from ...generate.upscale import find_upsampler, upsampler_sizes
from ...generate.upscale import upscale as generate
from ...images import BICUBIC, psnr, to_bytes, to_pil, to_tensor
from .. import samples
from ..generated import Files, complete, opened
from ..protocol import Option, Result, Rows
from ..statistics import Mean, mean

EXAMPLES = (
    "dalle evaluate upscale --recipe unclip -n 50 --sheet upscaled.png",
    "dalle evaluate upscale data.path=photos --model starter/upsampler",
)
DEFAULTS = Files(out="out/upscale")
Kind = Literal["clean", "degraded"]
KINDS: tuple[Kind, ...] = ("clean", "degraded")  # inputs: reduced by area, or degraded as photographs are


@dataclass(frozen=True)
class Pair:
    """An image in high and low resolution, RGB, and its caption."""

    caption: str
    large: Image.Image
    small: Image.Image


@dataclass(frozen=True)
class Comparison:
    """Mean PSNR in dB of the upsampler and of bicubic interpolation, and of the difference per image."""

    kind: str
    upsampler: Mean
    bicubic: Mean
    gain: Mean

    def to_json(self) -> dict[str, Any]:
        """Return the figures; the interval of a single image is null."""
        interval = self.gain.interval if self.gain.count > 1 else None
        values = {"psnr": self.upsampler.value, "bicubic_psnr": self.bicubic.value, "gain": self.gain.value}
        return {"input": self.kind, "num_images": self.gain.count, **values, "gain_interval": interval}


@dataclass(frozen=True)
class Upscaling(Result):
    """The comparisons on each kind of inputs."""

    model: str
    comparisons: tuple[Comparison, ...]
    rows: Rows
    sheet = True

    def to_json(self) -> list[dict[str, Any]]:
        return [{"model": self.model, **one.to_json()} for one in self.comparisons]

    def table(self) -> list[str]:
        lines = [f"{'input':<10} {'images':>8} {'PSNR dB':>8} {'bicubic':>8}  difference (95 % interval)"]
        for one in self.comparisons:
            low, high = one.gain.interval
            values = f"{one.gain.count:>8} {one.upsampler.value:>8.2f} {one.bicubic.value:>8.2f}"
            lines.append(f"{one.kind:<10} {values}  {one.gain.value:+.2f} ({low:+.2f} to {high:+.2f})")
        return lines


def upscale(
    model: Annotated[str | None, Option("Checkpoint of an upsampler.", metavar="NAME|PATH", panel="Model")] = None,
    recipe: Annotated[
        str | None, Option("Or a system that has one. Default: glide.", metavar="NAME|PATH", panel="Model")
    ] = None,
    data: Mapping[str, Any] | None = None,
    num_images: Annotated[int, Option("Images, each clean and degraded.", 1, 1_000_000, ("-n",))] = 50,
    objects: str = "everyday",
    sampler: str | None = None,
    options: Files = DEFAULTS,
) -> Upscaling:
    """Enlarge images, clean and degraded, and compare PSNR with bicubic interpolation.

    data: a `data` section of the large images; default: unseen built-in scenes. Raises RecipeError, CheckpointError,
    DataError, Failure.
    """
    if model and recipe:
        raise Failure("give --model or --recipe, not both", USAGE)
    name = model or recipe or "glide"
    sampling = {"steps": options.steps, "sampler": sampler}
    source, _ = find_upsampler(name, sampling)
    size, factor = upsampler_sizes(source)
    large = samples.load(num_images, size, objects, data, captions=False)
    comparisons, rows = [], []
    for kind in KINDS:
        scenes, results = list(pairs(large, factor, kind)), Collected()
        files = options.to(kind)
        inputs = files.write_inputs(name, [(pair.caption, pair.small) for pair in scenes])
        how = files.to("generated").generation(name, sampling={"sampler": sampler})
        code = generate(inputs, options=how, results=results)
        images = list(opened(complete(results, code)))
        comparisons.append(compare(kind, scenes, images))
        rows += [
            [
                (pair.small.resize(pair.large.size, Image.Resampling.NEAREST), kind), (bicubic(pair), "bicubic"),
                (image, "upsampler"), (pair.large, "true"),
            ]
            for pair, image in zip(scenes, images)
        ]  # fmt: skip
    return Upscaling(name, tuple(comparisons), rows)


def pairs(large_samples: Iterable[samples.Sample], factor: int, kind: Kind) -> Iterator[Pair]:
    """Yield images, and the same reduced `factor` times."""
    for number, sample in enumerate(large_samples):
        large = Image.fromarray(sample.image)
        small = _clean(large, factor) if kind == "clean" else _degraded(large, factor, number)
        yield Pair(sample.caption, large, small)


def bicubic(pair: Pair) -> Image.Image:
    """Enlarge the small image by bicubic interpolation."""
    return pair.small.resize(pair.large.size, BICUBIC)


def compare(kind: str, scenes: Sequence[Pair], upscaled: Sequence[Image.Image]) -> Comparison:
    """Compare upscaled images, in the order of the pairs, with the true ones."""
    true = [to_tensor(pair.large) for pair in scenes]
    ours = [psnr(to_tensor(image), large) for image, large in zip(upscaled, true, strict=True)]
    other = [psnr(to_tensor(bicubic(pair)), large) for pair, large in zip(scenes, true)]
    return Comparison(kind, mean(ours), mean(other), mean([a - b for a, b in zip(ours, other)]))


def _clean(large: Image.Image, factor: int) -> Image.Image:
    seeds = torch.zeros(1, dtype=torch.int64)  # nothing is random in a reduction without blur and noise
    return to_pil(downsample(to_tensor(large)[None], factor, seeds)[0])


def _degraded(large: Image.Image, factor: int, seed: int) -> Image.Image:
    small: Tensor = degrade(to_bytes(large), factor, seed, clean=0.0)
    return Image.fromarray(small.permute(1, 2, 0).contiguous().numpy())
