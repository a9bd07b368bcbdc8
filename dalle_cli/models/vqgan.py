"""VQGAN (Esser et al. 2021, section 3.1): images to a grid of image tokens and back, the nearest of learned vectors
each.

Parameter names are those of the published weights (github.com/CompVis/taming-transformers). Images are (B, 3, H, W) in
[-1, 1], as the weights have them; image tokens are (B, h, w) with h = H / factor; a latent is (B, e, h, w), e
`embed_dim`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.attention import attend
from . import models
from .adm import GROUPS, level_widths


def _norm(channels: int) -> nn.GroupNorm:
    if channels % GROUPS:
        raise ValueError(f"a layer of {channels} channels: not a multiple of {GROUPS}, the groups of its norm")
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.norm1, self.conv1 = _norm(n_in), nn.Conv2d(n_in, n_out, 3, padding=1)
        self.norm2, self.conv2 = _norm(n_out), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(branch)))


class Attention(nn.Module):
    """Attention of every position to all others, with one head. (B, C, h, w) to the same."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v = (nn.Conv2d(width, width, 1) for _ in range(3))
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norm(x)
        q, k, v = (part(seen).flatten(2).mT[:, None] for part in (self.q, self.k, self.v))  # (B, 1, h w, C)
        return x + self.proj_out(attend(q, k, v)[:, 0].mT.unflatten(-1, x.shape[2:]))


class Downsample(nn.Module):
    """Downsampling by two; the published padding is only on the right and at the bottom."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2))


class Level(nn.Module):
    """Residual blocks of one size, each with an attention where `attention`; resample: to the next level's size."""

    block: Any  # pyright takes modules inside modules for tensors
    attn: Any

    def __init__(self, n_in: int, width: int, num_res_blocks: int, attention: bool, resample: str | None = None):
        super().__init__()
        self.block = nn.ModuleList(ResBlock(n_in if i == 0 else width, width) for i in range(num_res_blocks))
        self.attn = nn.ModuleList(Attention(width) for _ in range(num_res_blocks if attention else 0))
        self.resample = resample
        if resample:
            self.add_module(resample, Downsample(width) if resample == "downsample" else Upsample(width))

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        return self.get_submodule(self.resample)(x) if self.resample else x


class Middle(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = ResBlock(width, width), Attention(width), ResBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Images (B, 3, H, W) to (B, latent_channels, h, w)."""

    def __init__(self, widths: list[int], num_res_blocks: int, attention_factors: list[int], latent_channels: int):
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        before = widths[0]
        for level, width in enumerate(widths):
            resample = "downsample" if level < len(widths) - 1 else None
            self.down.append(Level(before, width, num_res_blocks, 2**level in attention_factors, resample))
            before = width
        self.mid = Middle(before)
        self.norm_out, self.conv_out = _norm(before), nn.Conv2d(before, latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """(B, latent_channels, h, w) to images (B, 3, H, W); a block more on every level than the encoder has."""

    def __init__(self, widths: list[int], num_res_blocks: int, attention_factors: list[int], latent_channels: int):
        super().__init__()
        self.conv_in = nn.Conv2d(latent_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        above = [*widths[1:], widths[-1]]  # the width that comes from the level below, which is computed first
        self.up = nn.ModuleList(
            Level(above[level], width, num_res_blocks + 1, 2**level in attention_factors, "upsample" if level else None)
            for level, width in enumerate(widths)
        )
        self.norm_out, self.conv_out = _norm(widths[0]), nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):  # numbered by size, the largest first
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Quantizer(nn.Module):
    """The vectors that image tokens represent: `embedding.weight`, (vocab_size, e)."""

    def __init__(self, vocab_size: int, embed_dim: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        nn.init.uniform_(self.embedding.weight, -1 / vocab_size, 1 / vocab_size)

    def forward(self, latent: Tensor) -> Tensor:
        """Return the token of the nearest vector at every position. (B, e, h, w) to (B, h, w), int64."""
        vectors = self.embedding.weight
        positions = latent.movedim(1, -1)  # (B, h, w, e)
        # |z - v|^2 but for |z|^2, which all image tokens share, and halved
        return (vectors.square().sum(dim=1) / 2 - positions @ vectors.T).argmin(dim=-1)


@models.register("vqgan")
class VQGAN(nn.Module):
    """VQGAN (Esser et al. 2021): an encoder, a codebook and a decoder.

    vocab_size: number of image tokens. embed_dim: width of the codebook's vectors. base_channels: channels of the first
    level. channel_mult: channels of each level, as multiples of base_channels. num_res_blocks: residual blocks of the
    encoder per level. attention_factors: downsampling factors at which there is attention. latent_channels: channels
    between the networks and the two 1x1 convolutions around the codebook.
    """

    def __init__(
        self,
        vocab_size: int = 16384,
        embed_dim: int = 256,
        base_channels: int = 128,
        channel_mult: list[float] = [1, 1, 2, 2, 4],  # noqa: B006  (a recipe's default, never changed)
        num_res_blocks: int = 2,
        attention_factors: list[int] = [16],  # noqa: B006
        latent_channels: int = 256,
    ):
        super().__init__()
        if not 1 <= len(channel_mult) <= 16 or num_res_blocks < 1:
            raise ValueError(
                f"a VQGAN needs 1 to 16 levels of at least one block, got {len(channel_mult)} and {num_res_blocks}"
            )
        if vocab_size < 1 or embed_dim < 1 or latent_channels < 1:
            raise ValueError(
                f"a VQGAN needs vocab_size, embed_dim and latent_channels over 0, got {vocab_size}, {embed_dim} and "
                f"{latent_channels}"
            )
        widths = level_widths(base_channels, channel_mult, attention_factors)
        self.vocab_size = vocab_size
        self.factor = 2 ** (len(widths) - 1)
        self.encoder = Encoder(widths, num_res_blocks, attention_factors, latent_channels)
        self.decoder = Decoder(widths, num_res_blocks, attention_factors, latent_channels)
        self.quantize = Quantizer(vocab_size, embed_dim)
        self.quant_conv = nn.Conv2d(latent_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, latent_channels, 1)

    def encode_latent(self, image: Tensor) -> Tensor:
        """Return the latent before it is rounded to image tokens.

        (B, 3, H, W) to (B, e, h, w). Raises ValueError for odd sizes.
        """
        if image.shape[-1] % self.factor or image.shape[-2] % self.factor:
            raise ValueError(f"pictures of {image.shape[-1]}x{image.shape[-2]} px do not divide by {self.factor}")
        return self.quant_conv(self.encoder(image))

    def encode(self, image: Tensor) -> Tensor:
        """Return the image tokens of an image.

        (B, 3, H, W) to (B, h, w), int64; in float32 whatever the precision of the run.
        """
        with torch.autocast(image.device.type, enabled=False):
            return self.quantize(self.encode_latent(image.float()))

    def vectors(self, tokens: Tensor) -> Tensor:
        """Return the latent of image tokens. (B, h, w) to (B, e, h, w)."""
        return self.quantize.embedding(tokens).movedim(-1, 1)

    def decode_latent(self, latent: Tensor) -> Tensor:
        """Return images of a latent, which may leave [-1, 1]. (B, e, h, w) to (B, 3, H, W)."""
        return self.decoder(self.post_quant_conv(latent))

    def decode(self, tokens: Tensor) -> Tensor:
        """Return images of image tokens. (B, h, w) to (B, 3, H, W) in [-1, 1]."""
        return self.decode_latent(self.vectors(tokens)).float().clamp(-1, 1)
