"""A DALL-E 1 of untrained networks, small enough to draw in milliseconds. Its pictures are noise, always the same."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.nn import prepacked
from dalle_cli.systems.device import Device
from dalle_cli.text.learn import learn

GRID, SIZE, CODES, CLIP_SIZE = 4, 16, 32, 32
CAPTIONS = ["a red circle", "a blue square", "a green star on a pink background"] * 2
CPU = Device("cpu", torch.float32)


@dataclass(frozen=True)
class Tiny:
    """Paths of the checkpoints and of the system recipe that names the transformer and the CLIP."""

    dvae: str
    clip: str
    dalle: str
    recipe: str
    words: list[str]  # the merges of the tokenizers


def recipes(dvae: Path) -> dict[str, dict[str, Any]]:
    transformer = {"vocab": 520, "context": 8, "codes": CODES, "grid": GRID, "width": 16, "depth": 3, "heads": 2}
    image = {"type": "vit", "size": CLIP_SIZE, "patch": 16, "width": 16, "depth": 1, "heads": 2}
    text = {"type": "clip-text", "vocab": 522, "context": 12, "width": 16, "depth": 1, "heads": 2}
    codec = {"type": "dvae", "vocab": CODES, "hidden": 8, "init": 8, "groups": 3, "blocks": 1}
    return {
        "dvae": {
            "model": codec,
            "task": {"type": "dvae"},
            "data": {"type": "scenes", "glyphs": "shapes", "size": SIZE},
        },
        "clip": {
            "model": {"type": "clip", "embed_dim": 8, "image": image, "text": text},
            "task": {"type": "clip"},
            "tokenizer": {"type": "clip", "path": "nowhere.json"},
        },
        "dalle": {
            "model": {"type": "dalle", **transformer},
            "task": {"type": "dalle"},
            "tokenizer": {"type": "dalle", "path": "nowhere.json"},
            "frozen": {"dvae": str(dvae)},
        },
    }


def spread(model: torch.nn.Module, gain: float) -> dict[str, torch.Tensor]:
    """Weights far enough from their start that pictures, prompts and codes all make a difference."""
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for tensor in state.values():
        if tensor.ndim > 1:
            tensor.mul_(gain)
    return state


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    """The checkpoints of a tiny system, in a folder that nothing else is written to."""
    folder = tmp_path_factory.mktemp("tiny")
    paths = {kind: folder / f"{kind}.safetensors" for kind in ("dvae", "clip", "dalle")}
    torch.manual_seed(0)
    words = learn(CAPTIONS, 520, "dalle").merges
    for kind, gain in (("dvae", 1.5), ("clip", 2.0), ("dalle", 8.0)):
        recipe = recipes(paths["dvae"])[kind]
        vocabulary = None if kind == "dvae" else learn(CAPTIONS, 522 if kind == "clip" else 520, kind)
        task: Any = checkpoint.compose(recipe, vocabulary)
        checkpoint.save(paths[kind], spread(task.model, gain), recipe, vocabulary, step=7, samples=70)
    recipe = folder / "tiny.yaml"
    recipe.write_text(
        f"system: {{type: dalle1}}\nparts: {{transformer: {paths['dalle']}, reranker: {paths['clip']}}}\n"
        "sample: {temperature: 0.9}\n"
    )
    return Tiny(*(str(path) for path in paths.values()), str(recipe), words)


def noise(seed: int = 0, width: int = SIZE, height: int = SIZE) -> Image.Image:
    """A picture that no other seed has."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@dataclass(frozen=True)
class Glide:
    """Paths of miniature diffusion checkpoints, 8 px and upsampled 16 px, and of the system recipe of all of them."""

    decoder: str
    inpaint: str
    upsampler: str
    upsampler_inpaint: str
    noised_clip: str
    clip: str
    classifier: str
    label: str
    recipe: str


@dataclass(frozen=True)
class Unclip:
    """Paths of a miniature unCLIP, 8 px and upsampled to 16 and 32 px, and of the system recipe of one upsampler."""

    prior: str
    ar_prior: str
    decoder: str
    inpaint: str
    karlo: str
    upsampler: str
    upsampler_2: str
    last_step: str
    clip: str
    recipe: str


def unclip_recipes(clip: str) -> dict[str, dict[str, Any]]:
    base = {"type": "unet", "channels": 32, "multiples": [1, 1], "blocks": 1, "head_width": 32}
    base |= {"learned_variance": False}
    image = {"type": "clip-condition", "embed_dim": 8, "tokens": 2, "width": 32}
    text = {"type": "text-condition", "vocab": 522, "context": 6, "width": 32, "depth": 1, "heads": 2}
    states = {"type": "clip-text-condition", "embed_dim": 8, "states": 16, "width": 32}
    words = {"tokenizer": {"type": "clip", "path": "nowhere.json"}}

    def decoder(**conditions: Any) -> dict[str, Any]:
        task = {"type": "decoder", "size": 8, "predict": "v", "variance": "small", "drop_text": 0.5, "drop_image": 0.1}
        return {"model": base | {"attention": [2], "conditions": conditions}, "task": task, "frozen": {"clip": clip}}

    def prior(kind: str, **numbers: int) -> dict[str, Any]:
        sizes = {"embed_dim": 8, "context": 12, "states": 16, "width": 16, "depth": 1, "heads": 2}
        return {"model": {"type": kind} | sizes | numbers, "task": {"type": kind}, "frozen": {"clip": clip}} | words

    def upsampler(size: int) -> dict[str, Any]:
        small = {"conditions": {"low_res": {"type": "low-res-condition", "factor": 2}}}
        task = {"type": "decoder", "size": size, "predict": "v", "variance": "small"}
        return {"model": base | small | {"attention": [], "middle_attention": False}, "task": task}

    return {
        "prior": prior("diffusion-prior"),
        "ar_prior": prior("ar-prior", components=6, buckets=8),
        "decoder": decoder(text=text, clip=image) | words,
        "inpaint": decoder(text=text, clip=image, inpaint={"type": "inpaint-condition"}) | words,
        "karlo": decoder(clip=image, text=states) | words,
        "upsampler": upsampler(16),
        "upsampler_2": upsampler(32),
        "last_step": {
            "model": {"type": "last-step", "first": upsampler(16)["model"], "last": upsampler(16)["model"]},
            "task": upsampler(16)["task"],
        },
    }


@pytest.fixture(scope="session")
def unclip(tiny, tmp_path_factory) -> Unclip:
    folder = tmp_path_factory.mktemp("unclip")
    paths = made(folder, unclip_recipes(tiny.clip))
    named = {name: paths[name] for name in ("prior", "decoder", "upsampler")}
    named |= {"clip": tiny.clip, "reranker": tiny.clip}
    recipe = folder / "unclip.yaml"
    parts = ", ".join(f"{name}: {path}" for name, path in named.items())
    recipe.write_text(
        f"system: {{type: unclip}}\nparts: {{{parts}}}\nsample: {{steps: 5, up_steps: 3, prior_steps: 4}}\n"
    )
    return Unclip(**paths, clip=tiny.clip, recipe=str(recipe))


def made(folder: Path, recipes: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Checkpoints of recipes by name: networks of random weights, none of them zero."""
    words = learn(CAPTIONS, 522, "clip")
    paths = {}
    for kind, recipe in recipes.items():
        tokenizer = words if "tokenizer" in recipe else None
        torch.manual_seed(len(paths))
        task: Any = checkpoint.compose(recipe, tokenizer)
        with torch.no_grad():
            for parameter in task.model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        if hasattr(task, "fit"):  # of priors, which find their buffers in data
            task.fit(torch.randn(300, 8), torch.randn(300, 8))
        paths[kind] = str(folder / f"{kind}.safetensors")
        checkpoint.save(Path(paths[kind]), task.model.state_dict(), recipe, tokenizer, step=7, samples=70)
    return paths


def glide_recipes() -> dict[str, dict[str, Any]]:
    text = {"type": "text-condition", "vocab": 522, "context": 6, "width": 32, "depth": 1, "heads": 2}
    low_res, inpaint = {"type": "low-res-condition", "factor": 2}, {"type": "inpaint-condition"}
    base = {"type": "unet", "channels": 32, "multiples": [1, 1], "blocks": 1, "attention": [2], "head_width": 32}
    base |= {"learned_variance": False}
    image = {"type": "noised-vit", "size": 8, "patch": 4, "width": 16, "depth": 1, "heads": 2, "steps": 1000}
    words = {"type": "noised-clip-text", "vocab": 522, "context": 12, "width": 16, "depth": 1, "heads": 2}
    names = ["circle", "square", "star"]
    classifier = {"type": "classifier", "size": 8, "classes": 3, "channels": 32, "multiples": [1, 1], "blocks": 1}

    def decoder(size: int, **conditions: Any) -> dict[str, Any]:
        task = {"type": "decoder", "size": size, "predict": "v", "variance": "small", "drop_text": 0.1}
        return {"model": base | {"conditions": {"text": text} | conditions}, "task": task}

    label = {"conditions": {"label": {"type": "label-condition", "classes": 3}}}
    return {
        "decoder": decoder(8),
        "inpaint": decoder(8, inpaint=inpaint),
        "upsampler": decoder(16, low_res=low_res),
        "upsampler_inpaint": decoder(16, inpaint=inpaint, low_res=low_res),
        "noised_clip": {
            "model": {"type": "noised-clip", "embed_dim": 8, "image": image, "text": words},
            "task": {"type": "noised-clip"},
        },
        "classifier": {
            "model": classifier | {"attention": [2], "head_width": 32},
            "task": {"type": "classifier", "classes": names},
        },
        "label": {
            "model": base | label,
            "task": {"type": "decoder", "size": 8, "variance": "small", "classes": names},
        },
    }


@pytest.fixture(scope="session")
def glide(tiny, tmp_path_factory) -> Glide:
    """Diffusion networks of random weights, none of them zero, in a folder that nothing else is written to."""
    folder = tmp_path_factory.mktemp("glide")
    recipes = glide_recipes()
    for kind in recipes.keys() - {"classifier", "label"}:
        recipes[kind]["tokenizer"] = {"type": "clip", "path": "nowhere.json"}
    paths = made(folder, recipes)
    named = {name: paths[name] for name in ("decoder", "upsampler", "noised_clip", "classifier")} | {
        "reranker": tiny.clip
    }
    recipe = folder / "glide.yaml"
    parts = ", ".join(f"{name}: {path}" for name, path in named.items())
    recipe.write_text(f"system: {{type: glide}}\nparts: {{{parts}}}\nsample: {{steps: 5, up_steps: 3}}\n")
    return Glide(**paths, clip=tiny.clip, recipe=str(recipe))


packs = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture
def used(monkeypatch) -> list[str]:
    """The layers, as class and number of weights, that work with weights laid out, call by call."""
    found: list[str] = []
    real = prepacked._Product.__call__

    def call(self, x):
        if not torch.is_grad_enabled():
            found.append(f"{type(self.module).__name__} {self.weight.numel()}")
        return real(self, x)

    monkeypatch.setattr(prepacked._Product, "__call__", call)
    return found
