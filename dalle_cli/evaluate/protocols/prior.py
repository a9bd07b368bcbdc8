"""How close unCLIP's priors come to the image embeddings of captions that they have not seen."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import checkpoint, console
from ...exits import BAD_INPUT, USAGE, Failure
from ...models import embedding
from ...systems import device
from ...tasks.prior import PriorTask
from .. import samples
from ..protocol import Option, Progress, Result, silent

EXAMPLES = (
    "dalle evaluate prior starter/prior starter/prior-ar",
    "dalle evaluate prior prior-unclip-diffusion-tiny --objects shapes",
)
BATCH = 50  # captions that a prior samples for at once
TEXT, OTHER = "text embedding", "another image"


@dataclass(frozen=True)
class Row:
    """What is used as the image embedding of a caption, and how close it is to the true one.

    cosine: the mean; centered_cosine: with the mean image embedding, which all have in common, subtracted from both;
    recall_at_1: the fraction of captions whose true image is the nearest of the pool. text_cosine: the mean cosine with
    the caption's own embedding. num_parameters: of a prior, else 0.
    """

    name: str
    cosine: float
    centered_cosine: float
    recall_at_1: float
    text_cosine: float
    num_parameters: int = 0


@dataclass(frozen=True)
class PriorComparison(Result):
    """rows: the text's own embedding, the samples of each prior, and a second image of each caption as a reference."""

    num_captions: int
    pool_size: int
    priors: tuple[Row, ...]

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(self)]

    def table(self) -> list[str]:
        recall = f"recall at 1 of {self.pool_size}"
        lines: list[tuple[str, ...]] = [("", "cosine", "centered", recall, "with the text", "parameters")]
        for row in self.priors:
            figures = (
                f"{row.cosine:.3f}",
                f"{row.centered_cosine:.3f}",
                f"{row.recall_at_1:.1%}",
                f"{row.text_cosine:.3f}",
            )
            lines.append((row.name, *figures, f"{row.num_parameters / 1e6:.2f}M" if row.num_parameters else ""))
        head = f"{self.num_captions} unseen captions; cosine similarity with the true image embedding"
        return [head, *console.align(lines)]


@dataclass(frozen=True)
class Embeddings:
    """Captions and the CLIP embeddings of them, of their images, and of second images of the same: (N, e) each."""

    captions: list[str]
    texts: Tensor
    images: Tensor
    second_images: Tensor


@torch.no_grad()
def prior(
    models: Annotated[list[str], Option("Checkpoints of priors over one CLIP.", metavar="MODEL...", positional=True)],
    num_captions: Annotated[int, Option("Unseen captions.", 2, 1_000_000, ("-n",))] = 500,
    pool_size: Annotated[int, Option("Images of which the true one should be the nearest.", 2)] = 100,
    objects: str = "everyday",
    clip: Annotated[str | None, Option("The CLIP, for checkpoints that name none.", panel="Model")] = None,
    guidance_scale: float | None = None,
    steps: str | None = None,
    prior_samples: Annotated[
        int | None, Option("Embeddings per caption; the best is used. Default: diffusion 2, AR 1.", 1, panel="Sampling")
    ] = None,
    temperature: Annotated[float | None, Option("AR priors: sampling temperature.", 0, panel="Sampling")] = None,
    seed: int | None = None,
    precision: str = "auto",
    progress: Progress = silent,
) -> PriorComparison:
    """Compare the embeddings that priors sample for unseen captions with the true image embeddings.

    Sampling options apply to the priors that know them. Raises CheckpointError, Failure.
    """
    if not 2 <= pool_size <= num_captions:
        raise Failure(f"--pool-size {pool_size}: from 2 to --num-captions {num_captions}", USAGE)
    num_captions -= num_captions % pool_size
    place = device.choose(precision)
    priors = [_load(name, clip, place) for name in models]
    known = _embed(priors[0], num_captions, objects, place)
    for name, task in zip(models, priors):
        if not torch.equal(_fingerprint(task), _fingerprint(priors[0])):
            raise Failure(f"{name} is of another CLIP than {models[0]}: compare priors of the same CLIP", BAD_INPUT)
    options = {
        "guidance_scale": guidance_scale,
        "steps": steps,
        "num_samples": prior_samples,
        "temperature": temperature,
    }
    rows = [_row(TEXT, known.texts, known, pool_size)]
    for name, task in zip(models, priors):
        sampled = _sample(task, known.captions, seed or 0, options, place, name, progress)
        size = sum(parameter.numel() for parameter in task.model.parameters())
        rows.append(_row(name, sampled, known, pool_size, size))
    rows.append(_row(OTHER, known.second_images, known, pool_size))
    return PriorComparison(num_captions, pool_size, tuple(rows))


def _load(name: str, clip: str | None, place: device.Device) -> PriorTask:
    task: Any = checkpoint.load(name, frozen={"clip": clip} if clip else None)
    if not isinstance(task, PriorTask):
        raise Failure(f"{name} holds no prior over CLIP embeddings: `dalle train-prior --recipe unclip-...`", BAD_INPUT)
    if task.clip is None:
        raise Failure(f"{name} names no CLIP: give --clip", USAGE)
    place.place(task)
    return task


def _fingerprint(task: PriorTask) -> Tensor:
    """Return numbers that differ between any two CLIPs."""
    assert task.clip is not None
    return torch.cat([p.flatten()[:1].float() for p in task.clip.parameters()]).cpu()


def _embed(task: PriorTask, count: int, objects: str, place: device.Device) -> Embeddings:
    """Return unseen captions and their embeddings by a prior's CLIP."""
    clip, tokenizer = task.clip, task.tokenizer
    assert clip is not None
    assert tokenizer is not None
    size: Any = clip.visual.size
    scenes = list(samples.unseen(count, size, objects, distinct=True))
    second = list(samples.second_images([sample.scene for sample in scenes], size, objects))
    parts: list[list[Tensor]] = [[], [], []]
    for start in range(0, count, BATCH):
        batch = scenes[start : start + BATCH]
        with place.autocast():
            packed = embedding.tokenize(clip, tokenizer, [sample.caption for sample in batch])
            parts[0].append(embedding.read_texts(clip, packed)[0])
            parts[1].append(embedding.embed_images(clip, samples.batch([sample.image for sample in batch])))
            parts[2].append(embedding.embed_images(clip, samples.batch(second[start : start + BATCH])))
    texts, images, others = (torch.cat(part).cpu() for part in parts)
    return Embeddings([sample.caption for sample in scenes], texts, images, others)


def _sample(
    task: PriorTask,
    captions: Sequence[str],
    seed: int,
    options: Mapping[str, Any],
    place: device.Device,
    stage: str,
    progress: Progress,
) -> Tensor:
    """Return a prior's embeddings of captions, (N, e); caption i has seed `seed` + i."""
    known = inspect.signature(task.sample).parameters
    options = {key: value for key, value in options.items() if key in known and value is not None}
    sampled = []
    for start in range(0, len(captions), BATCH):
        batch = captions[start : start + BATCH]
        with place.autocast():
            seeds = [seed + start + i for i in range(len(batch))]
            sampled.append(task.sample(batch, seeds, **options).float().cpu())
        progress(stage, start + len(batch), len(captions))
    return torch.cat(sampled)


def _row(name: str, sampled: Tensor, known: Embeddings, pool_size: int, num_parameters: int = 0) -> Row:
    unit = F.normalize(known.images, dim=1)
    center = unit.mean(dim=0)
    vectors = F.normalize(sampled, dim=1)
    offset = vectors.mean(dim=0) if name == TEXT else center
    centered = F.cosine_similarity(vectors - offset, unit - center, dim=1)
    pools = vectors.view(-1, pool_size, vectors.shape[1]), unit.view(-1, pool_size, unit.shape[1])
    similarity = pools[0] @ pools[1].mT  # (pools, sampled, images)
    return Row(
        name,
        (vectors * unit).sum(dim=1).mean().item(),
        centered.mean().item(),
        (similarity.argmax(dim=2) == torch.arange(pool_size)).float().mean().item(),
        F.cosine_similarity(sampled, known.texts, dim=1).mean().item(),
        num_parameters,
    )
