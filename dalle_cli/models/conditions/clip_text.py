"""Conditioning on a text as a frozen CLIP encodes it, as Karlo's decoder does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import embedding, models
from ..adm import zero
from ..transformer import Transformer
from .base import Condition, Request, Resources, TrainingSample, check_vocabulary


@models.register("clip-text-condition")
class ClipTextCondition(Condition):
    """A CLIP text embedding and the states of its tokens, projected to `width`.

    Called with embedding (B, embed_dim), states (B, M, text_width), real (B, M) and ids (B, M); padding is masked.
    depth: layers of a bidirectional transformer over the states, which in CLIP know only the words before. vocab_size:
    entries of a token embedding that is added to them: the states of "above" and "below" may differ in less than a
    tenth. Both are 0 or none in the published weights. The null value is the empty text. Source: Karlo.
    """

    has_null = reads_text = needs_clip = True

    def __init__(
        self, embed_dim: int, text_width: int, width: int, depth: int = 0, heads: int = 2, vocab_size: int | None = None
    ):
        super().__init__()
        self.embed_dim, self.context_dim = embed_dim, width
        self.text_seq_proj = nn.Sequential(nn.Linear(text_width, width), nn.LayerNorm(width))
        self.token_embedding = nn.Embedding(vocab_size, width) if vocab_size else None
        if self.token_embedding:
            nn.init.normal_(self.token_embedding.weight, std=0.3)
        self.transformer = Transformer(width, depth, heads) if depth else None
        for block in self.transformer.resblocks if self.transformer else ():
            zero(block.attn.c_proj), zero(block.mlp.c_proj)  # type: ignore[union-attr]

    def connect(self, embedding: int) -> None:
        self.text_feat_proj = nn.Linear(self.embed_dim, embedding)

    def forward(self, embedding: Tensor, states: Tensor, real: Tensor, ids: Tensor | None = None) -> dict[str, Tensor]:
        dtype = self.text_feat_proj.weight.dtype
        tokens = self.text_seq_proj(states.to(dtype))
        if self.token_embedding:
            assert ids is not None
            tokens = tokens + self.token_embedding(ids)
        if self.transformer:
            tokens, _ = self.transformer(tokens, real[:, None, None])
        return {"embedding": self.text_feat_proj(embedding.to(dtype)), "tokens": tokens, "mask": real}

    def check(self, path: str, resources: Resources) -> None:
        clip, tokenizer = resources.clip, resources.tokenizer
        if clip is None:  # whoever generates brings it
            return
        if clip.embed_dim != self.embed_dim:
            raise ValueError(f"{path}.embed_dim: {self.embed_dim}, and frozen.clip has {clip.embed_dim}")
        embedding.check_tokenizer(clip, tokenizer)
        if self.token_embedding and tokenizer:
            check_vocabulary(path, self.token_embedding.num_embeddings, tokenizer)

    def collate(self, resources: Resources) -> "TokenizeForClip":
        return TokenizeForClip(embedding.texts_for(resources.require_clip(), resources.require_tokenizer()))

    def example(self, batch_size: int, resources: Resources) -> dict[str, Tensor]:
        text: Any = resources.require_clip().text
        ids = torch.zeros(batch_size, text.context_length, dtype=torch.int64)
        return {"clip_ids": ids, "clip_real": ids.bool()}

    def inputs(self, batch: dict[str, Any], resources: Resources) -> tuple[Tensor, ...]:
        return self._read(resources, (batch["clip_ids"], batch["clip_real"]))

    def encode(self, request: Request, resources: Resources) -> dict[str, Tensor]:
        clip, tokenizer = resources.require_clip(), resources.require_tokenizer()
        return self.encode_distinct(
            request.all_texts(),
            lambda texts: self._read(resources, embedding.tokenize(clip, tokenizer, texts)),
        )

    def _read(self, resources: Resources, tokens: embedding.Tokens) -> tuple[Tensor, ...]:
        device = self.text_feat_proj.weight.device
        return *embedding.read_texts(resources.require_clip(), tokens), tokens[0].to(device)


@dataclass(frozen=True)
class TokenizeForClip:
    """Token ids of a batch's texts for the CLIP, and which of them are no padding."""

    texts: embedding.Texts

    def __call__(self, samples: Sequence[TrainingSample]) -> dict[str, Tensor]:
        ids, real = self.texts([sample.text for sample in samples])
        return {"clip_ids": ids, "clip_real": real}
