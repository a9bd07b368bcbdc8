"""GLIDE's noised CLIP (Nichol et al. 2022, section 2.4): a CLIP whose image tower reads noisy images and their time.

Against CLIP: a learned vector for each time is in the class token's position, keys have no bias, the GELU is exact,
and the end of the text is told, not found. Shapes: B batch, N tokens, w width, e embed_dim.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.attention import attend
from ..nn.meta_init import normal
from . import models

MEAN = (122.77093945, 116.74601272, 104.09373519)  # of pixels in [0, 255]
STD = (68.50053285, 66.63215831, 70.32316309)


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by heads {heads}")
        self.heads = heads
        self.ln_1 = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        h = self.ln_1(x)
        q, k, v = (layer(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = x + self.out(attend(q, k, v, causal=causal).transpose(1, 2).flatten(2))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))


class Tower(nn.Module):
    """What both towers end in: blocks, and one token's state. Starts with the weights of CLIP's text tower."""

    def __init__(self, width: int, depth: int, heads: int):
        super().__init__()
        self.width = width
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.ln_post = nn.LayerNorm(width)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith(("out.weight", "c_proj.weight")):
                nn.init.normal_(parameter, std=(2 * width * depth) ** -0.5)
            elif "ln_" not in name and name.endswith("weight"):
                nn.init.normal_(parameter, std=width**-0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def read(self, x: Tensor, position: Tensor, causal: bool) -> Tensor:
        """Return the state of the token at `position`, (B,), after all blocks. x: (B, N, w); returns (B, w)."""
        for block in self.blocks:
            x = block(x, causal)
        return self.ln_post(x[torch.arange(len(x), device=x.device), position])


@models.register("noised-vit")
class NoisedVisionTransformer(Tower):
    """Image tower over square patches of noisy images at one of `steps` timesteps.

    steps: number of timesteps. image: (B, 3, size, size), normalized; t: (B,) integers; returns (B, width).
    """

    def __init__(self, size: int, patch_size: int, width: int, depth: int, heads: int, steps: int = 1000):
        super().__init__(width, depth, heads)
        if size % patch_size:
            raise ValueError(f"size {size} is not divisible by patch_size {patch_size}")
        self.size = size
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.time_embedding = normal(steps, width, std=width**-0.5)
        self.positional_embedding = normal((size // patch_size) ** 2 + 1, width, std=width**-0.5)
        self.ln_pre = nn.LayerNorm(width)

    def forward(self, image: Tensor, t: Tensor) -> Tensor:
        if image.shape[-2:] != (self.size, self.size):
            raise ValueError(f"pictures of {image.shape[-1]}x{image.shape[-2]} px for a tower of {self.size} px")
        x = self.conv1(image).flatten(2).mT  # (B, N, w)
        x = torch.cat([self.time_embedding[t][:, None].to(x.dtype), x], dim=1) + self.positional_embedding.to(x.dtype)
        return self.read(self.ln_pre(x), torch.zeros_like(t), causal=False)


@models.register("noised-clip-text")
class NoisedTextTransformer(Tower):
    """Text tower of a noised CLIP.

    ids: (B, N) token ids, N at most `context_length`; lengths: (B,), how many are real; returns (B, width).
    """

    def __init__(self, vocab_size: int, context_length: int, width: int, depth: int, heads: int):
        super().__init__(width, depth, heads)
        self.vocab_size, self.context_length = vocab_size, context_length
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = normal(context_length, width, std=0.01)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        if ids.shape[1] > self.context_length:
            raise ValueError(
                f"{ids.shape[1]} tokens are more than the text encoder's {self.context_length}; truncate them"
            )
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        return self.read(x, lengths - 1, causal=True)


@models.register("noised-clip")
class NoisedCLIP(nn.Module):
    """Two towers and a projection from each to `embed_dim` channels.

    image, text: the towers. fixed_logit_scale: factor of the cosines; learned if not given.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        embed_dim: int,
        image: NoisedVisionTransformer,
        text: NoisedTextTransformer,
        fixed_logit_scale: float | None = None,
    ):
        super().__init__()
        for name, tower, kind in (("image", image, NoisedVisionTransformer), ("text", text, NoisedTextTransformer)):
            if not isinstance(tower, kind):
                raise ValueError(f"model.{name}: {type(tower).__name__} is no {name} tower of a noised CLIP")
        self.embed_dim = embed_dim
        self.visual, self.text = image, text
        self.image_projection = nn.Linear(image.width, embed_dim, bias=False)
        self.text_projection = nn.Linear(text.width, embed_dim, bias=False)
        logit_scale = torch.tensor(math.log(fixed_logit_scale or 1 / 0.07))
        if fixed_logit_scale is None:
            self.logit_scale = nn.Parameter(logit_scale)
        else:
            self.register_buffer("logit_scale", logit_scale, persistent=False)
        # the mean and deviation for pixels in [-1, 1]
        self.register_buffer("mean", torch.tensor([x / 127.5 - 1 for x in MEAN]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([x / 127.5 for x in STD]).view(3, 1, 1), persistent=False)

    def encode_image(self, image: Tensor, t: Tensor) -> Tensor:
        """Return features of noisy images, not normalized. (B, 3, size, size) and integer times (B,) to (B, e)."""
        image = ((image - self.mean) / self.std).to(self.image_projection.weight.dtype)
        return self.image_projection(self.visual(image, t))

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Return features of token ids, not normalized. (B, N) and numbers of real tokens (B,) to (B, e)."""
        return self.text_projection(self.text(ids, lengths))

    def forward(self, image: Tensor, t: Tensor, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features of unit length in float32, (B, e) each, and the factor of their cosines."""
        image_features = F.normalize(self.encode_image(image, t).float(), dim=-1)
        text_features = F.normalize(self.encode_text(ids, lengths).float(), dim=-1)
        return image_features, text_features, self.logit_scale.exp()
