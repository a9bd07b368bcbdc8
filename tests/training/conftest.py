import io
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.launch import launch
from dalle_cli.text import tokenizers
from dalle_cli.text.learn import learn
from dalle_cli.training.options import check
from tests.data.conftest import write_tar

RECIPE = {
    "model": {"type": "dvae", "vocab_size": 8, "n_hid": 4, "n_init": 4, "groups": 2, "num_res_blocks": 1, "gain": 0.5,
              "patches": True},
    "task": {"type": "dvae", "kl_weight": 0.1, "kl_anneal_steps": 4, "temperature_steps": 4},
    "data": {"type": "scenes", "objects": "shapes", "size": 16, "samples": 400, "val_samples": 8,
             "require_captions": False},
    "optim": {"type": "adamw", "lr": 2e-3, "warmup_steps": 2, "max_grad_norm": 1.0},
    "train": {"steps": 8, "batch_size": 8, "save_every": "3", "log_every": 2, "validate_every": 4, "preview_every": 4,
              "preview_images": 2, "precision": "float32"},
}  # fmt: skip
CAPTIONS = ["a red circle", "a blue square", "a green star on a pink background"] * 2


@pytest.fixture
def recipe():
    """A run of seconds: a small dVAE on scenes of shapes."""

    def made(**sections):
        return check({name: node | sections.get(name, {}) for name, node in RECIPE.items()})

    return made


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """Runs of seconds, six steps each, for every family.

    The dVAE reads shards of 7, 30 and 5 pictures; the transformer's frozen dVAE, the priors' and the decoder's CLIP are
    untrained.
    """
    folder = tmp_path_factory.mktemp("families")
    for number, count in enumerate((7, 30, 5)):
        write_tar(folder / f"{number:05d}.tar", [(f"{number}-{i}.png", noise(100 * number + i)) for i in range(count)])
    for kind, size in (("clip", 522), ("dalle", 520)):
        learn(CAPTIONS, size, kind).save(folder / f"{kind}.json")
    torch.manual_seed(0)
    dvae = {**RECIPE, "task": {**RECIPE["task"], "usage_penalty": 0.05}}
    checkpoint.save(folder / "dvae.safetensors", checkpoint.compose(dvae).model.state_dict(), dvae)
    image = {"type": "vit", "size": 16, "patch_size": 8, "width": 16, "depth": 2, "heads": 2}
    text = {"type": "clip-text", "vocab_size": 522, "context_length": 12, "width": 16, "depth": 1, "heads": 2}
    clip = {
        "model": {"type": "clip", "embed_dim": 8, "image": image, "text": text},
        "task": {"type": "clip"},
        "tokenizer": {"type": "clip", "path": str(folder / "clip.json")},
    }
    sizes = {
        "vocab_size": 520,
        "context_length": 8,
        "image_vocab_size": 8,
        "grid_size": 8,
        "width": 16,
        "depth": 3,
        "heads": 2,
    }
    dalle = {
        "model": {"type": "dalle", **sizes},
        "task": {"type": "dalle"},
        "tokenizer": {"type": "dalle", "path": str(folder / "dalle.json")},
        "frozen": {"dvae": str(folder / "dvae.safetensors")},
    }
    tokenizer = tokenizers.build(clip["tokenizer"])
    checkpoint.save(
        folder / "clip.safetensors", checkpoint.compose(clip, tokenizer).model.state_dict(), clip, tokenizer
    )
    sizes = {"embed_dim": 8, "context_length": 12, "text_width": 16, "width": 16, "depth": 2, "heads": 2}
    priors = {
        kind: {
            "model": {"type": kind, **sizes, **more},
            "task": {"type": kind},
            "tokenizer": clip["tokenizer"],
            "frozen": {"clip": str(folder / "clip.safetensors")},
        }
        for kind, more in (("diffusion-prior", {}), ("ar-prior", {"components": 4, "buckets": 4}))
    }
    conditions = {
        "text": {"type": "text-condition", "vocab_size": 520, "context_length": 8, "width": 16, "depth": 1, "heads": 2},
        "clip": {"type": "clip-condition", "embed_dim": 8, "tokens": 2, "width": 16},
        "inpaint": {"type": "inpaint-condition"},
    }
    sizes = {
        "base_channels": 32,
        "channel_mult": [1, 1],
        "num_res_blocks": 1,
        "attention_factors": [2],
        "head_dim": 16,
        "patch_size": 4,
    }
    unet = {
        "model": {"type": "unet", **sizes, "learned_variance": False, "conditions": conditions},
        "task": {"type": "decoder", "size": 16, "prediction_type": "x0", "variance": "small", "text_drop_prob": 0.2,
                 "image_drop_prob": 0.2},
        "tokenizer": dalle["tokenizer"],
        "frozen": {"clip": str(folder / "clip.safetensors")},
    }  # fmt: skip
    train = {
        "steps": 6,
        "save_every": "3",
        "log_every": 1,
        "validate_every": 3,
        "preview_every": 0,
        "preview_images": 2,
    }
    common = {
        "data": {**RECIPE["data"], "samples": 90, "num_workers": 0},
        # With Adam's own eps, gradients that are zero but for rounding, such as a key bias's, would step as any other.
        "optim": {**RECIPE["optim"], "eps": 1e-4},
        "train": {**RECIPE["train"], **train},
    }
    shards = {
        "type": "shards",
        "path": str(folder),
        "size": 16,
        "val_samples": 8,
        "require_captions": False,
        "num_workers": 1,
    }
    dvae |= common | {"data": shards}
    rest = {"clip": clip, "dalle": dalle, **priors, "unet": unet}
    return {"dvae": check(dvae)} | {name: check(common | recipe) for name, recipe in rest.items()}


def noise(seed):
    """A picture file."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def run_in_two(tmp_path, jobs):
    """Runs, one after the other in two processes; returns the exit code. jobs: see runs.py."""
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps(jobs, default=str))
    return launch(2, [sys.executable, "-m", "tests.training.runs", str(path)])


def curve(run):
    """The logged (step, samples, epoch, loss) of a run."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["samples"], line["epoch"], line["loss"]) for line in lines if "event" not in line]
