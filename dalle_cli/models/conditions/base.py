"""The contract of a condition: from data or from a request to what a U-Net adds to its input.

A condition's `forward` returns any of: `embedding` (B, E), added to the time embedding; `tokens` (B, M, context_dim),
which every attention sees, with `mask` (B, M), true for real tokens; `channels` (B, c, H, W), concatenated with the
noisy image. They hold for all steps, so they are computed once. Shapes: B batch, E width of the time embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...registry import RecipeError
from ...text.tokenizer import Tokenizer
from ..clip import CLIP

KnownRegion = tuple[Tensor, Tensor]
"""An image, (B, 3, S, S), and where it is known, (B, 1, S, S): 1 for known and 0 for unknown."""


@dataclass(frozen=True)
class TrainingSample:
    """A sample with the choices that its seed makes, in a fixed order, so that runs are reproducible.

    image: (3, S, S), None if the data bring embeddings only. text: the caption, "" if it is dropped. mask: (1, S, S), 1
    where an inpainting network sees the image. keep_embedding: False if the image embedding is dropped.
    """

    image: Tensor | None
    seed: int
    caption: str
    text: str
    mask: Tensor
    keep_embedding: bool


BatchPart = Callable[[Sequence[TrainingSample]], dict[str, Tensor]]
"""Makes a condition's part of a batch in a worker process: small and picklable, without the network."""


@dataclass(frozen=True)
class Resources:
    """What a task offers to its conditions.

    size: pixels that are trained on. clip: the frozen CLIP. classes: names of labels, in order. degrade: makes an image
    (uint8) smaller by a factor, and worse, from a seed, in a worker; None if `downscale` does it. downscale: makes a
    batch of images smaller by a factor, each from its own seed, (B,), on the device.
    """

    size: int
    tokenizer: Tokenizer | None = None
    clip: CLIP | None = None
    classes: Sequence[str] | None = None
    degrade: Callable[[Tensor, int, int], Tensor] | None = None
    downscale: Callable[[Tensor, int, Tensor], Tensor] | None = None

    def require_clip(self) -> CLIP:
        """Return the frozen CLIP. Raises RecipeError if there is none."""
        if self.clip is None:
            raise RecipeError("frozen.clip: name the CLIP that this decoder's embeddings come from")
        return self.clip

    def require_tokenizer(self) -> Tokenizer:
        """Return the tokenizer. Raises ValueError if there is none."""
        if self.tokenizer is None:
            raise ValueError("tokenizer: a model that reads text needs one")
        return self.tokenizer


@dataclass(frozen=True)
class Request:
    """What images are generated from, a row for each of the B images.

    guided: with classifier-free guidance as many null rows follow. size: pixels. low_res: (B, 3, s, s).
    image_embedding: (B, e).
    """

    texts: Sequence[str]
    guided: bool
    size: int
    device: torch.device
    low_res: Tensor | None = None
    known: KnownRegion | None = None
    image_embedding: Tensor | None = None

    def all_texts(self) -> list[str]:
        """Return the texts of all rows; the text of a null row is empty."""
        return [*self.texts, *[""] * len(self.texts)] if self.guided else list(self.texts)

    def repeat(self, x: Tensor) -> Tensor:
        """Return x, (B, ...), for all rows: twice with guidance."""
        return torch.cat([x, x]) if self.guided else x


class Condition(nn.Module):
    """A condition without any input; subclasses say what they add and how.

    channels: number of input channels it adds. context_dim: width of its tokens, None for no tokens. has_null: whether
    it has a null value, so that classifier-free guidance is possible. reads_text, needs_clip: what it reads.
    inpaints: whether it takes a known region. low_res_factor: how much smaller the image is that it enlarges.
    image_embed_dim: width of the CLIP image embedding that it reads.
    """

    channels: int = 0
    context_dim: int | None = None
    has_null = False
    reads_text = False
    needs_clip = False
    inpaints = False
    low_res_factor: int | None = None
    image_embed_dim: int | None = None

    def __init__(self):  # torch's takes anything; this is what a recipe may give
        super().__init__()

    def connect(self, embedding: int) -> None:
        """Make the layers that end in the width of the time embedding. Called once, by the network."""

    def check(self, path: str, resources: Resources) -> None:
        """Raise ValueError if a task cannot serve this condition. path: of the condition in the recipe."""
        raise ValueError(f"{path}: task 'decoder' cannot train a {type(self).__name__}")

    def collate(self, resources: Resources) -> BatchPart | None:
        """Return what makes this condition's part of a training batch; None if the batch has it anyway."""
        return None

    def example(self, batch_size: int, resources: Resources) -> dict[str, Tensor]:
        """Return this condition's part of a batch of zeros, for estimates."""
        return {}

    def inputs(self, batch: dict[str, Any], resources: Resources) -> tuple[Tensor, ...]:
        """Return the arguments of `forward` for a training batch on the device; its `target` are the true images."""
        raise NotImplementedError

    def encode(self, request: Request, resources: Resources) -> dict[str, Tensor]:
        """Return what `forward` gives for a request, null rows included."""
        raise NotImplementedError

    def preview(self, batch: dict[str, Any], image: Tensor, resources: Resources) -> Tensor | None:
        """Return what a preview shows of this condition's input, as large as the image, (B, 3, S, S); None for nothing.

        image: (B, 3, S, S), the true one.
        """
        return None

    def request(self, batch: dict[str, Any], image: Tensor, resources: Resources) -> dict[str, Any]:
        """Return the fields of a Request that generate a training batch again, for previews."""
        return {}

    def encode_distinct(self, texts: Sequence[str], arguments: Callable[[list[str]], tuple]) -> dict[str, Tensor]:
        """Return what `forward` gives for texts, reading each distinct one once.

        arguments: of `forward`, from texts.
        """
        distinct = list(dict.fromkeys(texts))
        encoded = self(*arguments(distinct))
        device = next(iter(encoded.values())).device
        rows = torch.tensor([distinct.index(text) for text in texts], device=device)
        return {name: value[rows] for name, value in encoded.items()}


def check_vocabulary(path: str, vocab_size: int, tokenizer: Tokenizer) -> None:
    """Raise ValueError if a token embedding is smaller than the tokenizer's vocabulary."""
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(f"{path}.vocab_size: {vocab_size} is less than the tokenizer's {tokenizer.vocab_size}")


def merge(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return what several conditions give together: the sum of embeddings, and all tokens and channels in order."""
    values = {key: [part[key] for part in parts if key in part] for key in ("embedding", "tokens", "channels")}
    merged: dict[str, Tensor] = {}
    if values["embedding"]:
        merged["embedding"] = torch.stack(values["embedding"]).sum(dim=0)
    for key in ("tokens", "channels"):
        if values[key]:
            merged[key] = torch.cat(values[key], dim=1)
    if any("mask" in part for part in parts):  # tokens of the others are all real
        masks = [part.get("mask", part["tokens"].new_ones(part["tokens"].shape[:2], dtype=torch.bool))
                 for part in parts if "tokens" in part]  # fmt: skip
        merged["mask"] = torch.cat(masks, dim=1)
    return merged
