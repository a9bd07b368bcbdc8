"""How near unCLIP's priors come to the picture embeddings of captions that they have not seen."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checkpoint
from ..exits import BAD_INPUT, USAGE, Failure
from ..hardware.capabilities import fast_bf16, keep_memory
from ..tasks import embedding
from ..tasks.prior import PriorTask
from . import unseen_scenes

BATCH = 50  # captions drawn for together
TEXT, OTHER = "text embedding", "another picture"


@dataclass(frozen=True)
class Row:
    """What stands for a caption's picture embedding, and how near it is to the true one.

    cosine: the mean; centred: of both less the mean picture embedding, which all have in common; first: share of
    captions for which the true picture is the nearest of all. text: the mean cosine with the caption's own embedding.
    parameters: of a prior, else 0.
    """

    name: str
    cosine: float
    centred: float
    first: float
    text: float
    parameters: int = 0


@dataclass(frozen=True)
class Report:
    """rows: the text's own embedding, what each prior draws, and a second scene of each caption: what is to reach."""

    captions: int
    among: int
    rows: list[Row]


@torch.no_grad()
def evaluate(
    models: Sequence[str],
    count: int,
    glyphs: str,
    clip: str | None = None,
    options: dict[str, Any] | None = None,
    among: int = 100,
    seed: int = 0,
    watch: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Report:
    """Draw an embedding for each of `count` distinct captions of unseen scenes with every prior.

    clip: for priors whose checkpoints name none; all must be of one CLIP. options: of `draw`, each for the priors that
    know it. among: pictures of which the true one should be the nearest. Raises CheckpointError, Failure.
    """
    if not 2 <= among <= count:
        raise Failure(f"--among {among}: from 2 up to --count {count}", USAGE)
    keep_memory()
    count -= count % among
    device = "cuda" if torch.cuda.is_available() else "cpu"
    arithmetic = partial(torch.autocast, device, torch.bfloat16, enabled=fast_bf16())
    priors = [_load(name, clip, device) for name in models]
    captions, texts, images, others = _embedded(priors[0], count, glyphs, arithmetic)
    for name, prior in zip(models, priors):
        if not torch.equal(_probe(prior), _probe(priors[0])):
            raise Failure(f"{name} is of another CLIP than {models[0]}; compare priors of one", BAD_INPUT)
    rows = [_row(TEXT, texts, texts, images, among)]
    for name, prior in zip(models, priors):
        known = inspect.signature(prior.draw).parameters
        given = {key: value for key, value in (options or {}).items() if key in known and value is not None}
        drawn = []
        for start in range(0, count, BATCH):
            some = range(start, min(start + BATCH, count))
            with arithmetic():
                drawn.append(prior.draw([captions[i] for i in some], [seed + i for i in some], **given).float().cpu())
            watch(name, some.stop, count)
        size = sum(parameter.numel() for parameter in prior.model.parameters())
        rows.append(_row(name, torch.cat(drawn), texts, images, among, size))
    rows.append(_row(OTHER, others, texts, images, among))
    return Report(count, among, rows)


def _load(name: str, clip: str | None, device: str) -> PriorTask:
    task: Any = checkpoint.load(name, companions={"clip": clip} if clip else None)
    if not isinstance(task, PriorTask):
        raise Failure(f"{name} holds no prior over CLIP embeddings: `dalle train-prior --recipe unclip-...`", BAD_INPUT)
    if task.clip is None:
        raise Failure(f"{name} names no CLIP: give --clip", USAGE)
    return task.to(device)


def _probe(prior: PriorTask) -> Tensor:
    """Something that tells two CLIPs apart."""
    assert prior.clip is not None
    return torch.cat([p.flatten()[:1].float() for p in prior.clip.parameters()]).cpu()


def _embedded(
    prior: PriorTask, count: int, glyphs: str, arithmetic: Callable[[], AbstractContextManager]
) -> tuple[list[str], Tensor, Tensor, Tensor]:
    """Unseen captions, and embeddings of them, of their scenes, and of other scenes of the same: (count, e) each."""
    clip, tokenizer = prior.clip, prior.tokenizer
    assert clip is not None
    assert tokenizer is not None
    size: Any = clip.visual.size
    found = list(unseen_scenes.scenes(count, size, glyphs, distinct=True))
    again = list(unseen_scenes.again([scene for scene, _, _ in found], size, glyphs))
    parts: list[list[Tensor]] = [[], [], []]
    for start in range(0, count, BATCH):
        some = slice(start, start + BATCH)
        with arithmetic():
            packed = embedding.pack(clip, tokenizer, [text for _, text, _ in found[some]])
            parts[0].append(embedding.read(clip, packed)[0])
            parts[1].append(embedding.embed(clip, unseen_scenes.batch([picture for _, _, picture in found[some]])))
            parts[2].append(embedding.embed(clip, unseen_scenes.batch(again[some])))
    texts, images, others = (torch.cat(part).cpu() for part in parts)
    return [text for _, text, _ in found], texts, images, others


def _row(name: str, drawn: Tensor, texts: Tensor, images: Tensor, among: int, parameters: int = 0) -> Row:
    unit = F.normalize(images, dim=1)
    centre = unit.mean(dim=0)
    own = F.normalize(drawn, dim=1)
    centred = F.cosine_similarity(own - centre if name != TEXT else own - own.mean(dim=0), unit - centre, dim=1)
    scores = own.view(-1, among, own.shape[1]) @ unit.view(-1, among, own.shape[1]).mT  # (groups, drawn, pictures)
    return Row(
        name,
        (own * unit).sum(dim=1).mean().item(),
        centred.mean().item(),
        (scores.argmax(dim=2) == torch.arange(among)).float().mean().item(),
        F.cosine_similarity(drawn, texts, dim=1).mean().item(),
        parameters,
    )
