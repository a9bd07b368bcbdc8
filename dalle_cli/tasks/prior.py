"""Training and sampling with unCLIP's diffusion prior (Ramesh et al. 2022, section 2.2), and what both priors share.

Embeddings that come in and go out are CLIP's features as its projections give them, not cut to unit length: those of
the published networks are. Shapes: B batch, e embed_dim, C candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.order import combine
from ..diffusion.guidance import classifier_free, threshold
from ..diffusion.loss import diffusion_loss
from ..diffusion.respacing import timesteps
from ..diffusion.samplers import SAMPLERS
from ..models import embedding
from ..models.clip import CLIP
from ..models.prior import DiffusionPrior, Prior
from ..nn.noise import noise_source
from ..nn.prepacked import prepacked
from ..text.tokenizer import Tokenizer
from . import tasks
from .base import Task
from .collators import PriorCollator
from .noising import Schedule, add_noise, make_process

FIT = 32  # embeddings for each of their dimensions, from which mean, deviation and components are found
PART = 256  # images embedded at once while preparing
ProgressCallback = Callable[[int, int], Any]


class PriorTask(Task):
    """From texts to CLIP image embeddings. Training and sampling need `clip`; whoever loads a prior provides it."""

    family = "prior"
    model: Any

    def __init__(self, model: Prior, clip: CLIP | None, tokenizer: Tokenizer | None, text_drop_prob: float):
        super().__init__(model, tokenizer)
        if not 0 <= text_drop_prob < 1:
            raise ValueError(f"task.text_drop_prob: {text_drop_prob} is not in [0, 1)")
        self.clip, self.text_drop_prob = clip, text_drop_prob
        if clip is None:
            return
        text: Any = clip.text
        embedding.check_tokenizer(clip, tokenizer)
        wanted = {"embed_dim": clip.embed_dim, "context_length": text.context_length, "text_width": text.width}
        for name, size in wanted.items():
            if getattr(model, name) != size:
                raise ValueError(f"model.{name}: {getattr(model, name)}, and frozen.clip has {size}")

    # ---- training ----------------------------------------------------------------------------------------------------

    def collator(self, held_out: bool = False) -> PriorCollator:
        return PriorCollator(embedding.texts_for(self._clip(), self._tokenizer()), self.text_drop_prob)

    def example(self, count: int, size: int) -> dict:
        ids = torch.zeros(count, self.model.context_length, dtype=torch.int64)
        return {**super().example(count, size), "ids": ids, "real": ids.bool(), "dropped": ids[:, 0].bool()}

    def truth(self, batch: dict) -> Tensor:
        """Return embeddings of a batch's images, (B, e): those that the data bring, else the frozen CLIP's."""
        if "embedding" not in batch:
            return embedding.embed_images(self._clip(), batch["image"])
        found = batch["embedding"]
        if found.shape[1] != self.model.embed_dim:
            raise ValueError(
                f"data: embeddings of {found.shape[1]} numbers, where the prior has {self.model.embed_dim}"
            )
        return found

    def enough(self) -> int:
        """Return how many embeddings `fit` wants."""
        return FIT * self.model.embed_dim

    @torch.no_grad()
    def prepare(self, batches: Iterator[dict]) -> None:
        """Find mean, deviation and the like from the embeddings of the first samples that keep their captions."""
        images, texts, count = [], [], 0
        for batch in batches:
            parts: Any = batch["ids"].split(PART), batch["real"].split(PART)
            known = "embedding" if "embedding" in batch else "image"
            for ids, real, part, dropped in zip(*parts, batch[known].split(PART), batch["dropped"].split(PART)):
                images.append(self.truth({known: part})[~dropped])
                texts.append(embedding.read_texts(self._clip(), (ids, real))[0][~dropped])
                count += len(images[-1])
            if count >= self.enough():
                break
        self.fit(torch.cat(images), torch.cat(texts))

    def fit(self, images: Tensor, texts: Tensor) -> None:
        """Set the model's buffers from embeddings of images and texts, (N, e) each."""
        raise NotImplementedError

    # ---- sampling ----------------------------------------------------------------------------------------------------

    def sample(
        self,
        texts: Sequence[str],
        seeds: Sequence[int],
        guidance_scale: float = 1.0,
        steps: str | None = None,
        num_samples: int | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> Tensor:
        """Return image embeddings of texts, (B, e) on the model's device, each from its own seed.

        guidance_scale: classifier-free guidance, 1 for none. steps: of a diffusion prior. num_samples: candidates of
        each, of which the one whose cosine with the text is largest is kept. on_progress: called with steps done and
        steps in all.
        """
        raise NotImplementedError

    def read(self, texts: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the embeddings of texts, (B, e), and what the model makes of them; each distinct one is read once."""
        distinct = list(dict.fromkeys(texts))
        device = self.model.positional_embedding.device
        found = [one.to(device) for one in embedding.read_texts(self._clip(), self._pack(distinct))]
        rows = torch.tensor([distinct.index(text) for text in texts], device=device)
        return found[0][rows], {name: value[rows] for name, value in self.model.encode(*found).items()}

    def encode_texts(self, texts: Sequence[str], num_samples: int, guided: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """`read` for C candidates of each text, side by side; guided: and as many rows of no text after them."""
        rows = [text for text in texts for _ in range(num_samples)]
        text, cond = self.read([*rows, *[""] * len(rows)] if guided else rows)
        return text[: len(rows)], cond

    def _pack(self, texts: Sequence[str]) -> embedding.Tokens:
        return embedding.tokenize(self._clip(), self._tokenizer(), texts)

    def _clip(self) -> CLIP:
        if self.clip is None:
            raise ValueError("frozen.clip: name the CLIP whose texts and embeddings this prior is of")
        return self.clip

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ValueError("tokenizer: a prior reads texts as its CLIP does; name the CLIP's vocabulary")
        return self.tokenizer


def candidate_seeds(seeds: Sequence[int], num_samples: int) -> Tensor:
    """Seeds of the candidates of each seed, (B * C,): the first ones are the same for any number of them."""
    if num_samples < 1:
        raise ValueError(f"num_samples {num_samples} is not at least 1")
    own = combine(np.array([seed % 2**64 for seed in seeds], np.uint64)[:, None], np.arange(num_samples)[None])
    return torch.from_numpy(own.flatten().view(np.int64))


def pick_best(drawn: Tensor, text: Tensor, num_samples: int) -> Tensor:
    """Return the best of C embeddings of each text, by cosine. drawn, text: (B * C, e), to (B, e)."""
    fit = F.cosine_similarity(drawn, text, dim=1).view(-1, num_samples)
    chosen = fit.argmax(dim=1)
    return drawn.view(-1, num_samples, drawn.shape[1])[torch.arange(len(chosen), device=drawn.device), chosen]


@tasks.register("diffusion-prior")
class DiffusionPriorTask(PriorTask):
    """The squared error of the whitened embedding that the network predicts from a noisy one.

    clip: the frozen CLIP. schedule: noise schedule. steps: timesteps of the diffusion process. text_drop_prob: fraction
    of texts that are dropped, for classifier-free guidance. clip_sample_range: maximum absolute value of a whitened
    embedding while sampling; 10 as in Karlo, 5 in diffusers' pipeline.
    """

    model: DiffusionPrior

    def __init__(
        self,
        model: DiffusionPrior,
        clip: CLIP | None = None,
        tokenizer: Tokenizer | None = None,
        schedule: Schedule = "cosine",
        steps: int = 1000,
        text_drop_prob: float = 0.1,
        clip_sample_range: float = 10.0,
    ):
        super().__init__(model, clip, tokenizer, text_drop_prob)
        if not clip_sample_range > 0:
            raise ValueError(f"task.clip_sample_range: {clip_sample_range} is not positive")
        self.process, self.clip_sample_range = make_process(schedule, steps, "x0"), clip_sample_range

    def fit(self, images: Tensor, texts: Tensor) -> None:
        self.model.fit(images)

    def forward(self, batch: dict, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        truth = self.truth(batch)
        white = self.model.whiten(truth)
        x, t, eps = add_noise(self.process, white, batch["seed"])
        read = embedding.read_texts(self._clip(), (batch["ids"], batch["real"]))
        output = self.model(x, t, **self.model.encode(*read)).float()
        with torch.no_grad():
            cosine = F.cosine_similarity(self.model.unwhiten(output), truth, dim=1).mean()
        return diffusion_loss(self.process, output, white, t, eps).total.mean(), {"cosine": cosine}

    @torch.no_grad()
    def sample(
        self,
        texts: Sequence[str],
        seeds: Sequence[int],
        guidance_scale: float = 1.0,
        steps: str | None = None,
        num_samples: int | None = None,
        on_progress: ProgressCallback | None = None,
        sampler: str = "ddpm",
    ) -> Tensor:
        """See PriorTask.

        steps: as diffusion/respacing.py writes them; default 25. num_samples: default 2, the paper's.
        """
        num_samples, kept = num_samples or 2, timesteps(steps or "25", len(self.process))
        guided, noise = guidance_scale != 1.0, noise_source(candidate_seeds(seeds, num_samples))
        done = iter(range(1, len(kept) + 1))
        seen = (lambda t, x0: on_progress(next(done), len(kept))) if on_progress else None
        with prepacked(self.model), prepacked(self._clip()):
            text, cond = self.encode_texts(texts, num_samples, guided)
            denoise = self.process.denoiser(self.model, **cond)
            denoise = threshold(classifier_free(denoise, guidance_scale) if guided else denoise, self.clip_sample_range)
            x = SAMPLERS[sampler](self.process, denoise, noise(torch.zeros_like(text)), kept, noise=noise, on_step=seen)
        return pick_best(self.model.unwhiten(x), text, num_samples)
