"""Training a discrete VAE (Ramesh et al. 2021, section 2.1, appendix A.1-A.3): the evidence bound, relaxed."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images import mse, psnr_of_mse
from ..models.dvae import DVAE, map_pixels, unmap_pixels
from ..nn.all_gather import all_gather_with_grad
from ..nn.noise import uniform
from . import tasks
from .base import Preview, Task

START, PATCHES = 2048, 512  # the image tokens start from that many images at most, and that many patches for each token


@tasks.register("dvae")
class DVAETask(Task):
    """The negative evidence lower bound per pixel value, with gumbel-softmax samples of the image tokens.

    kl_weight: weight of the divergence from uniform tokens (the paper's beta). kl_anneal_steps: steps over which it
    rises to kl_weight. temperature: the temperature of the relaxation, which falls to it from 1. temperature_steps:
    steps over which it falls. min_log_scale: minimum of ln b, the log-scale of the logit-Laplace distribution; without
    it, flat regions have unbounded likelihood. usage_penalty: weight of a penalty on tokens used less than a seventh as
    often as in uniform use; not in the paper. train_encoder: train the encoder; else its tokens stay fixed (those that
    model.patches starts with, or train.init_from's), and the decoder learns from hard ones. Both schedules are cosines.
    """

    family = "dvae"
    model: DVAE

    def __init__(
        self,
        model: DVAE,
        kl_weight: float = 6.6,
        kl_anneal_steps: int = 5000,
        temperature: float = 1 / 16,
        temperature_steps: int = 150_000,
        min_log_scale: float | None = None,
        usage_penalty: float = 0.0,
        train_encoder: bool = True,
    ):
        super().__init__(model)
        if not temperature > 0:
            raise ValueError(f"task.temperature: {temperature} is not positive")
        self.kl_weight, self.kl_anneal_steps = kl_weight, kl_anneal_steps
        self.temperature, self.temperature_steps = temperature, temperature_steps
        self.min_log_scale, self.usage_penalty = min_log_scale, usage_penalty
        self.train_encoder = train_encoder
        model.encoder.requires_grad_(train_encoder)

    def prepare(self, batches: Iterator[dict]) -> None:
        """Initialize the codebook from the data, if the model has patches."""
        if self.model.drawn is None:
            return
        images = [next(batches)["image"]]
        self.model.check_size(images[0])
        positions = images[0][0, 0].numel() // self.model.factor**2  # in an image
        wanted = min(START, PATCHES * self.model.vocab_size // positions + 1)
        while sum(map(len, images)) < wanted:
            images.append(next(batches)["image"])
        try:
            self.model.start(torch.cat(images))
        except ValueError as error:
            raise ValueError(f"model.patches: {error}; set model.vocab_size lower") from None

    def forward(self, batch: dict, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, vocab = batch["image"], self.model.vocab_size
        if not self.train_encoder:
            tokens = self.model.encode(image)
            mean, scale = self.model.decode_token_stats(tokens).float().chunk(2, dim=1)
            loss = -logit_laplace(map_pixels(image), mean, scale, self.min_log_scale).mean()
            return loss, self._figures(image, mean, tokens)
        logits = (
            self.model.encode_logits(image).permute(0, 2, 3, 1).float()
        )  # (B, h, w, V), image tokens last for speed
        log_q = F.log_softmax(logits, dim=-1)
        q = log_q.exp()
        divergence = (q * (log_q + math.log(vocab))).sum(dim=-1).mean()  # nats a position
        noise = uniform(batch["seed"], *logits.shape[1:]).clamp_(1e-9, 1 - 1e-7)
        temperature = _cosine(1.0, self.temperature, step, self.temperature_steps)
        relaxed = F.softmax((logits - noise.log_().neg_().log_()) / temperature, dim=-1)
        stats = self.model.decode_stats(relaxed.permute(0, 3, 1, 2)).float()

        mean, scale = stats.chunk(2, dim=1)
        likelihood = -logit_laplace(map_pixels(image), mean, scale, self.min_log_scale).mean()
        kl = _cosine(0.0, self.kl_weight, step, self.kl_anneal_steps) / (
            3 * self.model.factor**2
        )  # both terms a pixel value
        loss = likelihood + kl * divergence
        if self.usage_penalty:
            # of sharpened logits: flat ones would use every token a little and say nothing
            use = F.softmax(4 * logits, dim=-1).mean(dim=(0, 1, 2), keepdim=True) * vocab
            use = all_gather_with_grad(use).mean(dim=0)  # over the batches of all processes
            loss = loss + self.usage_penalty * F.relu(1 - 7 * use).mean()
        figures = self._figures(image, mean, logits.argmax(dim=-1))
        logs = {"likelihood": likelihood, "divergence": divergence, **figures}
        return loss, {**logs, "temperature": torch.tensor(temperature, device=image.device)}

    @torch.no_grad()
    def _figures(self, image: Tensor, mean: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Return the PSNR in dB of the reconstructions, and the perplexity of the image tokens."""
        error = mse(unmap_pixels(torch.sigmoid(mean)), image)
        count = torch.ones(tokens.numel(), device=tokens.device)
        share = (
            torch.zeros(self.model.vocab_size, device=tokens.device).index_add_(0, tokens.flatten(), count)
            / tokens.numel()
        )
        return {"psnr": psnr_of_mse(error).mean(), "perplexity": torch.special.entr(share).sum().exp()}

    def preview(self, batch: dict) -> Preview:
        image = batch["image"]
        redrawn = self.model.decode(self.model.encode(image))
        return [*image, *redrawn.float()], None, len(image)


def logit_laplace(pixels: Tensor, mean: Tensor, log_scale: Tensor, floor: float | None = None) -> Tensor:
    """Return the log-density of the logit-Laplace distribution at pixels in (0, 1), elementwise.

    Ramesh et al. 2021, A.3.
    """
    if floor is not None:
        log_scale = log_scale.clamp(min=floor)
    distance = (torch.logit(pixels) - mean).abs() * torch.exp(-log_scale)
    return -math.log(2) - log_scale - torch.log(pixels * (1 - pixels)) - distance


def _cosine(start: float, end: float, step: int, steps: int) -> float:
    """Half a cosine wave from start, at step 0, to end, at step `steps` and after."""
    return end + (start - end) * (1 + math.cos(math.pi * step / steps)) / 2 if step < steps else end
