import copy
import math
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from dalle_cli.models import models

RECIPES = Path(__file__).parents[2] / "recipes" / "clip"

VIT = {"type": "vit", "size": 16, "patch_size": 8, "width": 32, "depth": 2, "heads": 4}
RESNET = {"type": "modified-resnet", "size": 32, "layers": [1, 1, 1, 1], "width": 4, "heads": 2}
TEXT = {"type": "clip-text", "vocab_size": 50, "context_length": 10, "width": 16, "depth": 2, "heads": 2}

# parameters of the whole and of the image side, entries of the state dict
PUBLISHED = {
    "rn50": (102_007_137, 38_316_896, 489),
    "rn101": (119_688_033, 56_259_936, 795),
    "rn50x4": (178_300_601, 87_137_080, 669),
    "rn50x16": (290_979_217, 167_328_912, 921),
    "rn50x64": (623_258_305, 420_380_352, 1353),
    "vit-b32": (151_277_313, 87_849_216, 302),
    "vit-b16": (149_620_737, 86_192_640, 302),
    "vit-l14": (427_616_513, 303_966_208, 446),
    "vit-l14-336": (427_944_193, 304_293_888, 446),
    "vit-h16": (986_339_841, 632_307_200, None),  # unCLIP's, on the assumptions that its recipe names
}


def clip(image=VIT, **arguments):
    torch.manual_seed(0)
    return models.build({"type": "clip", "embed_dim": 8, "image": image, "text": TEXT, **arguments})


def inputs(size=16):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(3, 3, size, size, generator=generator) * 2 - 1
    return image, torch.tensor([[48, 5, 7, 49], [48, 9, 49, 0], [48, 49, 0, 0]])


def recipe(name):
    node = OmegaConf.load(RECIPES / name)
    parent = node.pop("extends", None)
    return OmegaConf.merge(recipe(parent), node) if parent else node


def count(*modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_has_the_published_numbers(name):
    node = OmegaConf.to_container(recipe(f"{name}.yaml"), resolve=True)
    total, image_side, entries = PUBLISHED[name]
    models.names()  # the time below is of composing, not of importing
    start = time.perf_counter()
    with torch.device("meta"):
        model = models.build(node["model"])
    assert time.perf_counter() - start < 5
    assert count(model) == total
    assert count(model.visual, model.image_projection) == image_side
    assert entries is None or len(model.state_dict()) == entries
    assert node["data"]["size"] == model.visual.size


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_header_is_complete(name):
    comment = [line for line in (RECIPES / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    assert any(f"dalle train-clip --recipe {name} " in line for line in comment[:4])
    assert any(line.startswith("# Cost:") for line in comment)
    assert "Expect" in (text := "\n".join(comment)) or "No accuracy was published" in text


def test_adam_settings_by_architecture():
    resnet, transformer = recipe("rn50x16.yaml").optim, recipe("vit-b16.yaml").optim
    assert (resnet.lr, list(resnet.betas), resnet.eps) == (4e-4, [0.9, 0.999], 1e-8)
    assert (transformer.lr, list(transformer.betas), transformer.eps) == (5e-4, [0.9, 0.98], 1e-6)
    assert resnet.weight_decay == transformer.weight_decay == 0.2


@pytest.mark.parametrize("name", PUBLISHED)
def test_steps_match_the_paper(name):
    train = recipe(f"{name}.yaml").train
    epochs = 1 if name == "vit-l14-336" else 32
    assert train.steps == epochs * 400_000_000 // train.batch_size


def test_images_are_normalized():
    model, (image, _) = clip(), inputs()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    expected = model.image_projection(model.visual(((image + 1) / 2 - mean) / std))
    torch.testing.assert_close(model.encode_image(image), expected)


def test_forward_returns_unit_features():
    model, (image, ids) = clip(), inputs()
    image_unit, text_unit, scale = model(image, ids)
    torch.testing.assert_close(image_unit.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(text_unit, torch.nn.functional.normalize(model.encode_text(ids), dim=-1))
    assert scale.item() == pytest.approx(1 / 0.07)
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))


def test_features_are_float32_under_autocast():
    model, (image, ids) = clip(), inputs()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(image, ids)
    for one, other in zip(mixed[:2], model(image, ids)[:2], strict=True):
        assert one.dtype == torch.float32
        assert (one * other).sum(-1).min() > 0.999


def test_bf16_network_takes_float32_images():
    model, (image, _) = clip(), inputs()
    expected = model.encode_image(image)
    got = model.bfloat16().encode_image(image)
    assert got.dtype == torch.bfloat16
    assert torch.cosine_similarity(got.float(), expected).min() > 0.99


@pytest.mark.parametrize(("tower", "size"), [(VIT, 16), (RESNET, 32)])
def test_gradient_checkpointing_saves_memory(tower, size):
    plain = clip(tower)
    saving = clip(tower, gradient_checkpointing=True)
    saving.load_state_dict(copy.deepcopy(plain.state_dict()))
    kept = []
    for model in (plain, saving):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, to=sizes: to.append(x.numel()) or x, lambda x: x):
            image, text, scale = model(*inputs(size))
            loss = (scale * image @ text.T).diag().sum()
        loss.backward()
        kept.append(sum(sizes))
    assert kept[1] < 0.7 * kept[0]
    for (name, one), other in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        torch.testing.assert_close(other[1].grad, one.grad, msg=name)


def test_swapped_towers_are_refused():
    with pytest.raises(ValueError, match=r"model.text: VisionTransformer is no text tower"):
        models.build({"type": "clip", "embed_dim": 8, "image": VIT, "text": VIT})


def test_misspelled_tower_argument_is_named():
    with pytest.raises(ValueError, match=r"model.image.widht: model 'vit' takes no 'widht' \(did you mean 'width'\?\)"):
        models.build({"type": "clip", "embed_dim": 8, "image": {**VIT, "widht": 3}, "text": TEXT})
