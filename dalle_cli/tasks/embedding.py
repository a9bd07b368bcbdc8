"""What unCLIP's tasks read from a frozen CLIP: embeddings of pictures and texts, and the states of a text's tokens.

Embeddings are CLIP's features as its projections give them, not cut to unit length: those of the published networks
are. Shapes: B batch, e embed_dim, M tokens, w width of the text tower.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.clip import CLIP
from ..text.tokenizer import Tokenizer
from .collators import Texts

Tokens = tuple[Tensor, Tensor]
"""Token ids, (B, M), and which of them are no padding, (B, M)."""


def tokenize(clip: CLIP, tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
    """Texts as the CLIP's text tower wants them; texts too long are cut."""
    return texts_of(clip, tokenizer)(texts)


def texts_of(clip: CLIP, tokenizer: Tokenizer) -> Texts:
    """Return what tokenizes texts as the CLIP's text tower wants them."""
    text: Any = clip.text
    return Texts(tokenizer, text.context_length)


@torch.no_grad()
def read_texts(clip: CLIP, packed: Tokens) -> tuple[Tensor, Tensor, Tensor]:
    """Text embeddings (B, e), states of the tokens (B, M, w), and which are real, (B, M), on the CLIP's device."""
    ids, real = (one.to(clip.logit_scale.device) for one in packed)
    embedding, states = clip.read_text(ids)
    return embedding.float(), states.float(), real


@torch.no_grad()
def embed_images(clip: CLIP, image: Tensor) -> Tensor:
    """Embeddings of square pictures of any size, (B, 3, S, S) in [-1, 1] to (B, e)."""
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
