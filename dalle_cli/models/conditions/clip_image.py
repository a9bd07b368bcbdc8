"""Conditioning on a CLIP image embedding (Ramesh et al. 2022, section 2.1)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import embedding, models
from .base import BatchPart, Condition, Request, Resources, TrainingSample


@models.register("clip-condition")
class ClipImageCondition(Condition):
    """A CLIP image embedding, added to the time embedding, and as `tokens` tokens of `width`.

    Called with it, (B, embed_dim), and keep, (B,), false where a learned vector replaces it, which is the null value
    (Karlo's); without `keep` all are kept.
    """

    has_null = needs_clip = True

    def __init__(self, embed_dim: int, tokens: int, width: int):
        super().__init__()
        self.embed_dim, self.tokens, self.context_dim = embed_dim, tokens, width
        self.image_embed_dim = embed_dim
        self.cf_param = nn.Parameter(torch.zeros(embed_dim))
        self.clip_tok_proj = nn.Linear(embed_dim, tokens * width)

    def connect(self, embedding: int) -> None:
        self.clip_emb = nn.Linear(self.embed_dim, embedding)

    def forward(self, embedding: Tensor, keep: Tensor | None = None) -> dict[str, Tensor]:
        embedding = embedding.to(self.cf_param.dtype)  # CLIP's own precision may be another
        if keep is not None:
            embedding = torch.where(keep[:, None], embedding, self.cf_param)
        tokens = self.clip_tok_proj(embedding).unflatten(-1, (self.context_dim, self.tokens)).mT  # type: ignore[arg-type]
        return {"embedding": self.clip_emb(embedding), "tokens": tokens}

    def check(self, path: str, resources: Resources) -> None:
        # without a CLIP the data bring embeddings, or whoever generates brings the CLIP
        if resources.clip and resources.clip.embed_dim != self.embed_dim:
            raise ValueError(f"{path}.embed_dim: {self.embed_dim}, and frozen.clip has {resources.clip.embed_dim}")

    def collate(self, resources: Resources) -> BatchPart:
        return choose_kept

    def example(self, batch_size: int, resources: Resources) -> dict[str, Tensor]:
        return {"keep": torch.ones(batch_size, dtype=torch.bool), "kept_rows": torch.arange(batch_size)}

    def inputs(self, batch: dict[str, Any], resources: Resources) -> tuple[Tensor, ...]:
        return self.embeddings(batch, batch["kept_rows"], resources), batch["keep"]

    def embeddings(self, batch: dict[str, Any], rows: Tensor, resources: Resources) -> Tensor:
        """Return the image embeddings of a batch, (B, e): those of the data, or the frozen CLIP's of some rows.

        The other rows are zero: most are dropped in training, and embedding them takes a tenth of a step.
        """
        if "embedding" in batch:
            return batch["embedding"]
        clip, image = resources.require_clip(), batch["image"]
        result = torch.zeros(len(image), clip.embed_dim, device=image.device)
        if len(rows):
            result[rows] = embedding.embed_images(clip, image[rows])
        return result

    def encode(self, request: Request, resources: Resources) -> dict[str, Tensor]:
        given, count = request.image_embedding, len(request.texts)
        rows = torch.arange(2 * count if request.guided else count, device=request.device)
        keep = rows < (0 if given is None else count)
        given = torch.zeros(count, self.embed_dim) if given is None else given
        return self(request.repeat(given.to(request.device)), keep)

    def request(self, batch: dict[str, Any], image: Tensor, resources: Resources) -> dict[str, Any]:
        return {"image_embedding": self.embeddings(batch, torch.arange(len(image)), resources)}


def choose_kept(samples: Sequence[TrainingSample]) -> dict[str, Tensor]:
    """Return which image embeddings of a batch are kept, (B,), and their rows, found here to spare the GPU a wait."""
    keep = torch.tensor([sample.keep_embedding for sample in samples])
    return {"keep": keep, "kept_rows": keep.nonzero()[:, 0]}
