"""Networks that guide a decoder by their gradient: a noised CLIP, an ordinary CLIP, a classifier."""

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
    """A checkpoint that scores a decoder's pictures on their way. kinds: types of models that it may hold."""

    def __init__(self, device: Device, name: str, kinds: tuple[str, ...], decoder: DecoderTask):
        path = checkpoint.resolve(name)
        kind = checkpoint.metadata(path)["recipe"].get("model", {}).get("type")
        if kind not in kinds:
            raise RecipeError(f"{path} holds a '{kind}', where one of {', '.join(kinds)} is to guide")
        self.task: Any = device.place(checkpoint.load(name, mmap=device.offload).requires_grad_(False))
        self.noisy = kind != "clip"
        self.size = (self.task.model if kind == "classifier" else self.task.model.visual).size
        if self.noisy and self.size != decoder.size:
            raise RecipeError(f"{path} reads pictures of {self.size} px, and the decoder draws {decoder.size} px")
        if self.noisy:  # its noise schedule may be another than the decoder's
            self.steps = self.task.process.like(decoder.process).to(device.name)

    def score(self, told: Any, x: Tensor, t: Tensor) -> Tensor:
        """What a guide that reads noisy pictures says of them at the decoder's steps t, (B,)."""
        return self.task.score(told, x, self.steps[t])


def toward_clip(guide: Guide, texts: Sequence[str], denoise: Denoiser, scale: float) -> Gradient:
    """The gradient of CLIP's cosine times its logit scale, toward one text for each picture.

    A noised CLIP reads the noisy picture (Nichol et al. 2022, section 2.4); an ordinary one what `denoise` expects.
    """
    task = guide.task
    text = task.embed_texts(list(texts))
    if guide.noisy:
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
    """The gradient of a classifier's log-probability of each text's class. Dhariwal and Nichol 2021, section 4."""
    return score_gradient(lambda x, t: guide.score(texts, x, t), scale)
