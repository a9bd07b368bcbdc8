"""CLIP (Radford et al. 2021): an image tower and a text tower that share one space, trained by contrast.

Shapes: B batch, e embed_dim. Images are (B, 3, size, size) in [-1, 1] and are normalized here, with CLIP's mean and
deviation; the towers take them normalized.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import models

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of pixels in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)


class Tower(nn.Module):
    """What CLIP asks of a tower: forward(input, gradient_checkpointing) gives one feature of `width` numbers for each
    row.

    projection_bias: whether the projection to the shared space has a bias in this tower's published weights.
    """

    projection_bias = False

    def __init__(self, width: int):
        super().__init__()
        self.width = width


class ImageTower(Tower):
    """A tower over images of `size` by `size` pixels, normalized."""

    def __init__(self, size: int, width: int):
        super().__init__(width)
        self.size = size

    def check_size(self, image: Tensor) -> None:
        """Raise ValueError if images do not have the tower's size."""
        if image.shape[-2:] != (self.size, self.size):
            height, width = image.shape[-2:]
            raise ValueError(
                f"pictures of {width}x{height} px for a tower of {self.size} px; resize and crop them first"
            )


class TextTower(Tower):
    """A tower over at most `context_length` token ids, (B, N)."""

    def __init__(self, context_length: int, width: int):
        super().__init__(width)
        self.context_length = context_length


class Absent(Tower):
    """Replaces a tower that published weights lack; any use of it raises ValueError."""

    def __init__(self, what: str):
        super().__init__(0)
        self.what = what

    def _refuse(self, *_: object, **__: object) -> int:
        raise ValueError(f"this CLIP has no {self.what} tower; it was published, and imported, without")

    size = context_length = vocab_size = token_embedding = property(_refuse)
    forward = states = _refuse


@models.register("clip")
class CLIP(nn.Module):
    """Two towers, a projection from each to `embed_dim` channels, and the learned scale of their cosines.

    image, text: the towers; either may be missing, as in some published weights, which then embed only one of the two.
    fixed_logit_scale: factor of the cosines, if it is not learned. gradient_checkpointing: recompute the towers' blocks
    in the backward pass: less memory, a third more arithmetic.
    """

    mean: Tensor
    std: Tensor
    logit_scale: Tensor

    def __init__(
        self,
        embed_dim: int,
        image: ImageTower | None = None,
        text: TextTower | None = None,
        fixed_logit_scale: float | None = None,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        for name, tower, kind in (("image", image, ImageTower), ("text", text, TextTower)):
            if not isinstance(tower, kind | None):
                raise ValueError(f"model.{name}: {type(tower).__name__} is no {name} tower")
        if image is None and text is None:
            raise ValueError("model: a CLIP needs an image tower, a text tower, or both")
        self.embed_dim, self.gradient_checkpointing = embed_dim, gradient_checkpointing
        self.visual: Any = image or Absent("image")
        self.text: Any = text or Absent("text")
        self.image_projection = _projection(image, embed_dim)
        self.text_projection = _projection(text, embed_dim)
        logit_scale = torch.tensor(math.log(fixed_logit_scale or 1 / 0.07))
        if fixed_logit_scale is None:
            self.logit_scale = nn.Parameter(logit_scale)
        else:
            self.register_buffer("logit_scale", logit_scale, persistent=False)
        # the mean and deviation for pixels in [-1, 1]
        self.register_buffer("mean", torch.tensor([2 * x - 1 for x in MEAN]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([2 * x for x in STD]).view(3, 1, 1), persistent=False)

    def encode_image(self, image: Tensor) -> Tensor:
        """Return features of images, not normalized. (B, 3, size, size) in [-1, 1] to (B, e)."""
        image = (image - self.mean) / self.std
        if isinstance(self.image_projection, nn.Linear):
            image = image.to(self.image_projection.weight.dtype)
        return self.image_projection(self.visual(image, gradient_checkpointing=self._recompute()))

    def encode_text(self, ids: Tensor) -> Tensor:
        """Return features of token ids, not normalized. (B, N) to (B, e)."""
        return self.text_projection(self.text(ids, gradient_checkpointing=self._recompute()))

    def read_text(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return features as `encode_text` gives them, (B, e), and the state of every token, (B, N, width of the text
        tower).

        For towers that have `states`, which resolve a text better than one feature does (unCLIP's networks read them).
        """
        states = self.text.states(ids, gradient_checkpointing=self._recompute())  # type: ignore[operator]
        last = states[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]  # at the end token
        return self.text_projection(last), states

    def forward(self, image: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a loss needs: unit features in float32, (B, e) each, and the scale of their cosines."""
        image_features = F.normalize(self.encode_image(image).float(), dim=-1)
        text_features = F.normalize(self.encode_text(ids).float(), dim=-1)
        return image_features, text_features, self.logit_scale.exp()

    def _recompute(self) -> bool:
        return self.gradient_checkpointing and torch.is_grad_enabled()


def _projection(tower: Tower | None, embed_dim: int) -> nn.Module:
    if tower is None:
        return nn.Identity()
    layer = nn.Linear(tower.width, embed_dim, bias=tower.projection_bias)
    nn.init.normal_(layer.weight, std=tower.width**-0.5)
    return layer
