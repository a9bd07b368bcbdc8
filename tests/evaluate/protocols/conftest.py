import pytest
import torch

from dalle_cli.evaluate import generated
from dalle_cli.evaluate.protocols import edit
from dalle_cli.generate import latent_editor


@pytest.fixture
def evaluate_latents(dalle, unclip):
    """Run `dalle evaluate` on two scenes with the untrained unCLIP."""

    def run(command, *words, code=0, **how):
        shapes = ("-n", 2, "--steps", 2, "--objects", "shapes", "-q")
        ended = dalle("evaluate", command, "--recipe", unclip.recipe, *shapes, *words, **how)
        assert ended.code == code, ended.err
        return ended

    return run


@pytest.fixture
def identity(monkeypatch):
    """A system that returns the image whose embedding is closest to the requested one, at 64 px."""
    for module in (generated, edit):
        monkeypatch.setattr(module, "trained_size", lambda name: 64)
    seen = []
    encode = latent_editor.LatentEditor.encode

    def remember(self, image):
        latent = encode(self, image)
        seen.append((latent.z, image))
        return latent

    def decode(self, requests):
        for request in requests:
            _, image = max(seen, key=lambda one: float(torch.cosine_similarity(one[0], request.z, dim=0)))
            yield image, {"psnr": 99.0} | (request.measure(request.z) if request.measure else {})

    monkeypatch.setattr(latent_editor.LatentEditor, "encode", remember)
    monkeypatch.setattr(latent_editor.LatentEditor, "_decode_batch", decode)
