"""Training a noised CLIP (Nichol et al. 2022, section 2.4): CLIP on images at any step of a diffusion process."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.dvae import DVAE
from ..models.embedding import Texts
from ..models.noised_clip import NoisedCLIP
from ..nn.all_gather import contrastive_loss
from ..nn.noise import TrainingStream, uniform
from ..text.tokenizer import Tokenizer
from . import tasks
from .base import Task
from .collators import NoisedCLIPCollator
from .noising import Schedule, add_noise, check_timestep_shift, make_process


@tasks.register("noised-clip")
class NoisedCLIPTask(Task):
    """CLIP's loss over noisy images, each with a timestep of its own.

    schedule: noise schedule. max_logit_scale: maximum of the factor of the cosines. timestep_shift: below 1, training
    sees more of the low noise. reconstruction_prob: fraction of the images that are replaced by their reconstruction by
    the frozen dvae, for a CLIP that ranks images decoded by it: one that knows only originals confuses objects there.
    """

    model: NoisedCLIP

    def __init__(
        self,
        model: NoisedCLIP,
        tokenizer: Tokenizer,
        schedule: Schedule = "cosine",
        max_logit_scale: float = 100.0,
        timestep_shift: float = 1.0,
        reconstruction_prob: float = 0.0,
        dvae: DVAE | None = None,
    ):
        super().__init__(model, tokenizer)
        if not 0 <= reconstruction_prob <= 1:
            raise ValueError(f"task.reconstruction_prob: {reconstruction_prob} is not in [0, 1]")
        if reconstruction_prob and dvae is None:
            raise ValueError(f"task.reconstruction_prob: {reconstruction_prob} of the pictures need frozen.dvae")
        if tokenizer.vocab_size > model.text.vocab_size:
            raise ValueError(
                f"model.text.vocab_size: {model.text.vocab_size} is less than the tokenizer's {tokenizer.vocab_size}"
            )
        self.max_logit_scale, self.timestep_shift = max_logit_scale, check_timestep_shift(timestep_shift)
        self.dvae, self.reconstruction_prob = dvae, reconstruction_prob
        self.process = make_process(schedule, len(model.visual.time_embedding))

    def collator(self, held_out: bool = False) -> NoisedCLIPCollator:
        return NoisedCLIPCollator(self._texts())

    def example(self, count: int, size: int) -> dict:
        ids = torch.zeros(count, self.model.text.context_length, dtype=torch.int64)
        return {**super().example(count, size), "ids": ids, "lengths": torch.ones(count, dtype=torch.int64)}

    def forward(self, batch: dict, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        x, t, _ = add_noise(self.process, self._reconstruct_some(batch), batch["seed"], self.timestep_shift)
        image, text, scale = self.model(x, t, batch["ids"], batch["lengths"])
        with torch.no_grad():
            right = (image @ text.T).argmax(dim=1) == torch.arange(len(image), device=image.device)
        return contrastive_loss(image, text, scale), {"scale": scale, "accuracy": right.float().mean()}

    @torch.no_grad()
    def _reconstruct_some(self, batch: dict) -> Tensor:
        """Return the images, some of them replaced by their dVAE reconstruction."""
        image = batch["image"]
        if not self.reconstruction_prob:
            return image
        assert self.dvae is not None  # as __init__ saw to
        chosen = uniform(batch["seed"], 1, stream=TrainingStream.RECONSTRUCTION) < self.reconstruction_prob
        # all images are reconstructed: estimates on the meta device cannot know how many are chosen
        return torch.where(chosen[:, :, None, None], self.dvae.decode(self.dvae.encode(image)), image)

    def chance_levels(self, batch: dict) -> dict[str, float]:
        return {"accuracy": 1 / len(batch["key"])}

    @torch.no_grad()
    def after_step(self) -> None:
        if isinstance(self.model.logit_scale, torch.nn.Parameter):
            self.model.logit_scale.clamp_(max=math.log(self.max_logit_scale))

    @torch.no_grad()
    def embed_images(self, image: Tensor) -> Tensor:
        """Return unit features of images without noise, (B, 3, size, size) in [-1, 1] to (B, e), float32."""
        t = torch.zeros(len(image), dtype=torch.int64, device=image.device)
        return F.normalize(self.model.encode_image(image, t).float(), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit features of captions, (B, e), float32; captions too long are cut."""
        ids, real = (tensor.to(self.model.logit_scale.device) for tensor in self._texts()(texts))
        lengths = real.sum(dim=1)
        return F.normalize(self.model.encode_text(ids, lengths).float(), dim=-1)

    def score(self, text: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return the logits of noisy images and texts: their cosine times the scale, (B,).

        text: (B, e), unit length.
        """
        image = F.normalize(self.model.encode_image(x, t).float(), dim=-1)
        return self.model.logit_scale.exp() * (image * text).sum(dim=1)

    def _texts(self) -> Texts:
        return Texts(self.tokenizer, self.model.text.context_length)
