"""Discrete VAE of DALL-E 1 (Ramesh et al. 2021, section 2.1 and appendix A): images to a grid of image tokens and back.

Parameter names are those of the two published modules, prefixed `encoder.` and `decoder.`. Images are (B, 3, H, W) in
[-1, 1]; image tokens are (B, h, w) with h = H / 2^(groups - 1). The published pixel map, [0, 1] to [0.1, 0.9], is made
here.
"""

from collections import OrderedDict
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.kmeans import kmeans
from ..nn.meta_init import normal
from . import models

SHARPNESS = 3.0
EDGE = 0.1  # the pixel map keeps clear of 0 and 1, where the logit-Laplace density has its poles


class Conv(nn.Module):
    """Convolution of stride 1 that keeps the size, with the parameter names of the published weights."""

    def __init__(self, n_in: int, n_out: int, size: int):
        super().__init__()
        self.w = normal(n_out, n_in, size, size, std=(n_in * size**2) ** -0.5)
        self.b = nn.Parameter(torch.zeros(n_out))
        self.padding = (size - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, self.b, padding=self.padding)


class Block(nn.Module):
    """Residual block of four convolutions with sizes `kernels`; its branch enters with the small gain `gain`."""

    def __init__(self, n_in: int, n_out: int, kernels: tuple[int, int, int, int], gain: float):
        super().__init__()
        widths = (n_in, n_out // 4, n_out // 4, n_out // 4, n_out)
        self.gain = gain
        self.id_path = Conv(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        self.res_path = nn.Sequential()
        for i, size in enumerate(kernels):
            self.res_path.add_module(f"relu_{i + 1}", nn.ReLU(inplace=i > 0))  # the first input is still needed
            self.res_path.add_module(f"conv_{i + 1}", Conv(widths[i], widths[i + 1], size))

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.id_path(x), self.res_path(x), alpha=self.gain)


def _stack(
    first: nn.Module,
    widths: list[int],
    num_res_blocks: int,
    kernels: tuple[int, int, int, int],
    gain: float,
    resample: nn.Module,
    last: int,
) -> nn.Module:
    """input -> groups of blocks, resampled between -> ReLU and 1x1 convolution to `last` channels."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(input=first)
    for g, (n_in, n_out) in enumerate(pairwise(widths), start=1):
        group = OrderedDict()
        for b in range(1, num_res_blocks + 1):
            group[f"block_{b}"] = Block(n_in if b == 1 else n_out, n_out, kernels, gain)
        if g < len(widths) - 1:
            group["resample"] = resample
        parts[f"group_{g}"] = nn.Sequential(group)
    parts["output"] = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Conv(widths[-1], last, 1)))
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(parts)))


@models.register("dvae")
class DVAE(nn.Module):
    """The encoder and decoder of a discrete VAE.

    vocab_size: number of image tokens. n_hid: base width. n_init: width of the decoder's input. groups: levels of
    resolution. num_res_blocks: residual blocks per level. gain: factor of every residual branch; by default 1 /
    layers^2, as published; short trainings need more. patches: not in the paper: the encoder is one linear map of each
    position's own pixels, and the decoder adds one to its network. They start as the k-means of patches (`start`) and
    need little training, and the same patch has the same token wherever it is, which a transformer of a few million
    parameters can learn.
    """

    encoder: Any  # pyright takes modules inside modules for tensors
    decoder: Any

    def __init__(
        self,
        vocab_size: int = 8192,
        n_hid: int = 256,
        n_init: int = 128,
        groups: int = 4,
        num_res_blocks: int = 2,
        gain: float | None = None,
        patches: bool = False,
    ):
        super().__init__()
        if not 1 <= groups <= 16 or num_res_blocks < 1:
            raise ValueError(
                f"a dVAE needs 1 to 16 groups of at least one block, got groups={groups} and "
                f"num_res_blocks={num_res_blocks}"
            )
        if vocab_size < 1 or n_hid < 4 or n_init < 1:  # a quarter of `n_hid` is the width of the branches
            raise ValueError(
                f"a dVAE needs vocab_size and n_init over 0 and n_hid over 3, got {vocab_size}, {n_init} and {n_hid}"
            )
        self.vocab_size = vocab_size
        self.factor = 2 ** (groups - 1)
        down = [n_hid] + [n_hid * 2**g for g in range(groups)]
        up = [n_init] + [n_hid * 2**g for g in reversed(range(groups))]
        gain = 1 / (groups * num_res_blocks) ** 2 if gain is None else gain
        self.decoder = _stack(
            Conv(vocab_size, n_init, 1), up, num_res_blocks, (1, 3, 3, 3), gain, nn.Upsample(scale_factor=2), 6
        )
        self.drawn = None  # the decoder's linear map: mean and log-scale of every pixel of a token's patch
        if patches:
            self.encoder = nn.Conv2d(3, vocab_size, self.factor, stride=self.factor)
            self.drawn = nn.Embedding(vocab_size, 6 * self.factor**2)
            nn.init.zeros_(self.drawn.weight)
            nn.init.zeros_(self.decoder.blocks.output.conv.w)
        else:
            self.encoder = _stack(
                Conv(3, n_hid, 7), down, num_res_blocks, (3, 3, 3, 1), gain, nn.MaxPool2d(2), vocab_size
            )

    def check_size(self, image: Tensor) -> None:
        """Raise ValueError for images whose sides do not divide by a token's."""
        if image.shape[-1] % self.factor or image.shape[-2] % self.factor:
            raise ValueError(f"pictures of {image.shape[-1]}x{image.shape[-2]} px do not divide by {self.factor}")

    def encode_logits(self, image: Tensor) -> Tensor:
        """Return the logits of every token at every position.

        image: (B, 3, H, W) in [-1, 1]; returns (B, vocab_size, h, w).
        """
        self.check_size(image)
        return self.encoder(map_pixels(image))

    def encode(self, image: Tensor) -> Tensor:
        """Return the image tokens of an image: the one with the largest logit at every position. (B, 3, H, W) to (B, h,
        w), int64.

        In float32 at any precision of the run: the logits of two tokens may be closer than bfloat16 tells
        apart, and a transformer must find the image tokens that it was trained on.
        """
        with torch.autocast(image.device.type, enabled=False):
            return self.encode_logits(image.float()).argmax(dim=1)

    def decode_stats(self, weights: Tensor) -> Tensor:
        """Return mean and log-scale of each channel's logit-Laplace, (B, 6, H, W), of one-hot or relaxed (B,
        vocab_size, h, w).
        """
        stats = self.decoder(weights)
        if self.drawn is None:
            return stats
        return stats + F.pixel_shuffle(F.conv2d(weights, self.drawn.weight.T[..., None, None]), self.factor)

    def decode_token_stats(self, tokens: Tensor) -> Tensor:
        """Return `decode_stats` of image tokens, (B, h, w): the convolution over one-hot maps is a look-up."""
        first = self.decoder.blocks.input
        x = F.embedding(tokens, first.w[:, :, 0, 0].T).permute(0, 3, 1, 2) + first.b[:, None, None]
        for part in list(self.decoder.blocks)[1:]:
            x = part(x)
        if self.drawn is None:
            return x
        return x + F.pixel_shuffle(self.drawn(tokens).permute(0, 3, 1, 2), self.factor)

    @torch.no_grad()
    def start(self, images: Tensor) -> None:
        """Start the image tokens of a model with `patches` as the k-means of the patches of images (B, 3, H, W).

        A token's score is minus the squared distance to its patch, so scaled that a position's own loses SHARPNESS on
        average. Raises ValueError when there are fewer different patches than image tokens.
        """
        assert self.drawn is not None
        pixels = F.pixel_unshuffle(map_pixels(images), self.factor)  # (B, 3 f f, h, w)
        centers, distance = kmeans(pixels.permute(0, 2, 3, 1).flatten(0, 2), self.vocab_size)
        scale = SHARPNESS / distance
        # -|x - c|^2 but for |x|^2, which all image tokens share
        self.encoder.weight.copy_(2 * scale * centers.view_as(self.encoder.weight))
        self.encoder.bias.copy_(-scale * centers.square().sum(dim=1))
        self.drawn.weight[:, : centers.shape[1]] = torch.logit(centers.clamp(EDGE, 1 - EDGE))

    def decode(self, tokens: Tensor) -> Tensor:
        """Return images of image tokens. (B, h, w) to (B, 3, H, W) in [-1, 1]."""
        return unmap_pixels(torch.sigmoid(self.decode_token_stats(tokens)[:, :3].float()))


def map_pixels(image: Tensor) -> Tensor:
    """[-1, 1] to [0.1, 0.9]."""
    return (1 - 2 * EDGE) * (image + 1) / 2 + EDGE


def unmap_pixels(pixels: Tensor) -> Tensor:
    """[0.1, 0.9] to [-1, 1], clamped."""
    return (2 * (pixels - EDGE) / (1 - 2 * EDGE) - 1).clamp(-1, 1)
