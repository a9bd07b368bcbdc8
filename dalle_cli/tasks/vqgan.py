"""A published VQGAN as it is loaded: an image tokenizer, frozen. Its adversarial training is not implemented."""

from ..models.vqgan import VQGAN
from . import tasks
from .base import Task


@tasks.register("vqgan")
class VQGANTask(Task):
    """Hold a VQGAN (Esser et al. 2021) without an objective: it is imported and not trained."""

    family = None
    model: VQGAN

    def __init__(self, model: VQGAN):
        super().__init__(model.requires_grad_(False))
