"""Networks that guide a decoder by a gradient: a noised CLIP, an ordinary CLIP, a classifier."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .. import checkpoint
from ..diffusion.guidance import Gradient, score_gradient
from ..diffusion.process import Denoiser
from ..registry import RecipeError
from ..tasks.clip import CLIPTask
from ..tasks.decoder import DecoderTask
from .device import Device


class Guide:
    """A checkpoint that scores a decoder's noisy images. kinds: the model types that it may hold."""

    def __init__(self, device: Device, name: str, kinds: tuple[str, ...], decoder: DecoderTask):
        path = checkpoint.resolve(name)
        kind = checkpoint.metadata(path)["recipe"].get("model", {}).get("type")
        if kind not in kinds:
            raise RecipeError(f"{path} holds a '{kind}', and the guidance needs one of {', '.join(kinds)}")
        self.task: Any = device.place(checkpoint.load(name, mmap=device.offload).requires_grad_(False))
        self.reads_noisy_images = kind != "clip"
        self.size = (self.task.model if kind == "classifier" else self.task.model.visual).size
        if self.reads_noisy_images and self.size != decoder.size:
            raise RecipeError(f"{path} reads images of {self.size} px, and the decoder generates {decoder.size} px")
        if self.reads_noisy_images:  # its noise schedule can differ from the decoder's
            self.timesteps = self.task.process.like(decoder.process).to(device.name)

    def score(self, target: Any, x: Tensor, t: Tensor) -> Tensor:
        """Return the scores of noisy images x at the decoder's timesteps t, (B,). target: features, or texts."""
        return self.task.score(target, x, self.timesteps[t])


def toward_clip(guide: Guide, texts: Sequence[str], denoise: Denoiser, scale: float) -> Gradient:
    """Return the gradient of CLIP's cosine times its logit scale, toward one text per image.

    A noised CLIP reads the noisy image (Nichol et al. 2022, section 2.4); an ordinary one the x0 of `denoise`.
    """
    task = guide.task
    text = task.embed_texts(list(texts))
    if guide.reads_noisy_images:
        return score_gradient(lambda x, t: guide.score(text, x, t), scale)
    assert isinstance(task, CLIPTask)

    def score(x: Tensor, t: Tensor) -> Tensor:
        image = denoise(x, t).x0.clamp(-1, 1)
        if image.shape[-1] != guide.size:
            image = F.interpolate(image, guide.size, mode="bilinear", antialias=True)
        features = F.normalize(task.model.encode_image(image).float(), dim=-1)
        return task.model.logit_scale.exp() * (features * text).sum(dim=1)

    return score_gradient(score, scale)


def toward_class(guide: Guide, texts: Sequence[str], scale: float) -> Gradient:
    """Return the gradient of a classifier's log-probability of each text's class.

    Dhariwal and Nichol 2021, section 4.
    """
    return score_gradient(lambda x, t: guide.score(texts, x, t), scale)
