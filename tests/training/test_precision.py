import numpy as np
import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.data.scenes import Scenes
from dalle_cli.images import to_float
from dalle_cli.registry import RecipeError
from dalle_cli.training import precision

FAMILIES = ("dvae", "clip", "dalle", "diffusion-prior", "ar-prior")


@pytest.mark.parametrize(("fast", "chosen"), [(True, "bf16"), (False, "no")])
def test_auto_takes_bf16_where_it_is_fast(monkeypatch, fast, chosen):
    monkeypatch.setattr(precision, "has_fast_bf16", lambda: fast)
    assert precision.choose("auto") == chosen


def test_what_is_asked_for_is_taken():
    assert (precision.choose("float32"), precision.choose("bf16")) == ("no", "bf16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_fp16_needs_a_gpu():
    with pytest.raises(RecipeError, match=r"train\.precision: fp16 needs a CUDA device"):
        precision.choose("fp16")


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_in_bf16_point_where_those_in_float32_do(families, name):
    """By autocast, as `precision: auto` trains where bf16 is fast."""
    torch.manual_seed(0)
    task = checkpoint.compose(families[name])
    with torch.no_grad():  # a fresh network's ends are zero, and so would be the gradients before them
        for parameter in task.model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    batch = task.example(16, 16)
    scenes = Scenes(16, "shapes")
    batch["image"] = torch.stack(
        [to_float(torch.from_numpy(np.array(scenes.read(0, i)["image"])).permute(2, 0, 1)) for i in range(16)]
    )
    batch["seed"] = torch.arange(16)
    if "ids" in batch:
        batch["ids"] = torch.randint(1, 500, batch["ids"].shape)
    found = []
    for mixed in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss, _ = task(batch, 0)
        grads = torch.autograd.grad(loss, [p for p in task.model.parameters() if p.requires_grad], allow_unused=True)
        found.append(torch.cat([grad.flatten().float() for grad in grads if grad is not None]))
    assert not torch.equal(*found), "nothing was computed in bf16"
    assert torch.cosine_similarity(*found, dim=0) > 0.99
