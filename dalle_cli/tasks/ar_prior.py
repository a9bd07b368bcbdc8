"""Training and sampling with unCLIP's autoregressive prior (Ramesh et al. 2022, section 2.2).

Shapes: B batch, e embed_dim, P components, K buckets, C candidates.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import embedding
from ..models.ar_prior import ARPrior
from ..models.clip import CLIP
from ..nn.noise import uniform
from ..nn.prepacked import MIN_WEIGHTS, prepacked
from ..nn.token_sampling import sample_token
from ..text.tokenizer import Tokenizer
from . import tasks
from .prior import PriorTask, ProgressCallback, candidate_seeds, pick_best


@tasks.register("ar-prior")
class ARPriorTask(PriorTask):
    """Next-token loss over the buckets of an embedding's principal components, in nats per component.

    clip: the frozen CLIP. text_drop_prob: fraction of texts that are dropped, with the similarity of text and image,
    for classifier-free guidance.
    """

    model: ARPrior

    def __init__(
        self,
        model: ARPrior,
        clip: CLIP | None = None,
        tokenizer: Tokenizer | None = None,
        text_drop_prob: float = 0.1,
    ):
        super().__init__(model, clip, tokenizer, text_drop_prob)

    def enough(self) -> int:
        return max(super().enough(), 16 * self.model.buckets)

    def fit(self, images: Tensor, texts: Tensor) -> None:
        self.model.fit(images, texts)

    def forward(self, batch: dict, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        truth = self.truth(batch)
        text, states, real = embedding.read_texts(self._clip(), (batch["ids"], batch["real"]))
        tokens = self.model.quantize(truth)
        product = self.model.product(truth, text).masked_fill(batch["dropped"], self.model.buckets)
        logits = self.model(tokens, product, text, states, real)
        each = F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)
        used = torch.arange(self.model.components, device=each.device) < self.model.kept
        loss = (each * used).sum(dim=1).mean() / self.model.kept
        return loss, {"first": each[:, 0].mean()}

    @torch.no_grad()
    def sample(
        self,
        texts: Sequence[str],
        seeds: Sequence[int],
        guidance_scale: float = 1.0,
        steps: str | None = None,
        num_samples: int | None = None,
        on_progress: ProgressCallback | None = None,
        temperature: float = 1.0,
        min_fit_quantile: float = 0.5,
    ) -> Tensor:
        """See PriorTask; there are as many steps as components. num_samples: default 1.

        min_fit_quantile: the embedding is asked to fit its text at least as well as this fraction of images do their
        captions; the paper compared 0.5, 0.7, 0.85 and 0.95 and kept 0.5.
        """
        if not 0 <= min_fit_quantile < 1:
            raise ValueError(f"min_fit_quantile {min_fit_quantile} is not in [0, 1)")
        num_samples, guided, count = num_samples or 1, guidance_scale != 1.0, int(self.model.kept)
        chance, product = self._chances(seeds, num_samples, count, min_fit_quantile)
        text, cond = self.encode_texts(texts, num_samples, guided)
        if guided:
            product = torch.cat([product, torch.full_like(product, self.model.buckets)])
        tokens = torch.empty(len(text), count, dtype=torch.int64, device=text.device)
        with prepacked(self.model, min_weights=MIN_WEIGHTS):
            logits, cache = self.model.start(product, **cond)
            for position in range(count):
                if guided:
                    with_text, without = logits.chunk(2)
                    logits = torch.lerp(without, with_text, guidance_scale)
                tokens[:, position] = sample_token(logits, chance[:, position], temperature)
                if on_progress:
                    on_progress(position + 1, count)
                if position < count - 1:
                    latest = tokens[:, position]
                    logits = self.model.step(latest.repeat(2) if guided else latest, position, cache)
        return pick_best(self.model.dequantize(tokens), text, num_samples)

    @torch.no_grad()
    def sample_without_cache(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """`sample` without guidance by running the whole row for each component: slow and simple."""
        count = int(self.model.kept)
        chance, product = self._chances(seeds, 1, count, 0.5)
        read = embedding.read_texts(self._clip(), self._pack(texts))
        tokens = torch.zeros(len(texts), self.model.components, dtype=torch.int64, device=chance.device)
        for position in range(count):
            tokens[:, position] = sample_token(self.model(tokens, product, *read)[:, position], chance[:, position])
        return self.model.dequantize(tokens[:, :count])

    def _chances(
        self, seeds: Sequence[int], num_samples: int, count: int, min_fit_quantile: float
    ) -> tuple[Tensor, Tensor]:
        """Return uniform numbers for sampling, (B * C, P), and tokens of the similarity to ask for, (B * C,)."""
        device = self.model.basis.device
        drawn = uniform(candidate_seeds(seeds, num_samples), 1 + count).to(
            device
        )  # made on the CPU: the same on any device
        share = (
            min_fit_quantile + (1 - min_fit_quantile) * drawn[:, 0]
        )  # buckets hold as many each, so that a fraction of them is one of all
        return drawn[:, 1:], (share * self.model.buckets).long().clamp(max=self.model.buckets - 1)
