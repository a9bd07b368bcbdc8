"""What unCLIP's tasks read from a frozen CLIP: embeddings of images and texts, and the states of a text's tokens.

Embeddings are CLIP's features as its projections give them, not cut to unit length: those of the published networks
are. Shapes: B batch, e embed_dim, M tokens, w width of the text tower.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..text.tokenizer import Tokenizer
from .clip import CLIP

Tokens = tuple[Tensor, Tensor]
"""Token ids, (B, M), and which of them are no padding, (B, M)."""


@dataclass(frozen=True)
class Texts:
    """Tokenizes texts to rows of `context_length` tokens; longer texts are truncated. Small and picklable."""

    tokenizer: Tokenizer
    context_length: int

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Return token ids (B, context_length) and which of them are no padding."""
        ids, real = self.tokenizer.pack(texts, self.context_length)
        return torch.from_numpy(ids), torch.from_numpy(real)


def texts_for(clip: CLIP, tokenizer: Tokenizer) -> Texts:
    """Return what tokenizes texts for the text tower of a CLIP."""
    text: Any = clip.text
    return Texts(tokenizer, text.context_length)


def tokenize(clip: CLIP, tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
    """Return texts as the text tower of a CLIP reads them; longer texts are truncated."""
    return texts_for(clip, tokenizer)(texts)


@torch.no_grad()
def read_texts(clip: CLIP, packed: Tokens) -> tuple[Tensor, Tensor, Tensor]:
    """Text embeddings (B, e), states of the tokens (B, M, w), and which are real, (B, M), on the CLIP's device."""
    ids, real = (one.to(clip.logit_scale.device) for one in packed)
    embedding, states = clip.read_text(ids)
    return embedding.float(), states.float(), real


@torch.no_grad()
def embed_images(clip: CLIP, image: Tensor) -> Tensor:
    """Return embeddings of square images of any size, (B, 3, S, S) in [-1, 1] to (B, e)."""
    size = clip.visual.size
    if image.shape[-1] != size:
        image = F.interpolate(image, size, mode="bicubic", antialias=True).clamp(-1, 1)
    return clip.encode_image(image.to(clip.logit_scale.device)).float()


def check_tokenizer(clip: CLIP, tokenizer: Tokenizer | None) -> None:
    """Raises ValueError when a task's tokenizer cannot be the CLIP's."""
    vocab = clip.text.vocab_size  # type: ignore[union-attr]
    if tokenizer is None or tokenizer.vocab_size > int(vocab):  # type: ignore[arg-type]
        had = "none" if tokenizer is None else f"one of {tokenizer.vocab_size} entries"
        raise ValueError(f"tokenizer: texts are read by the frozen CLIP, of {vocab} entries, and there is {had}")
