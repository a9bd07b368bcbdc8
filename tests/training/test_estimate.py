import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dalle_cli import checkpoint, recipe
from dalle_cli.hardware.memory_meter import MemoryMeter
from dalle_cli.recipe import to_yaml
from dalle_cli.registry import RecipeError
from dalle_cli.training import estimate, optim
from dalle_cli.training.compose_meta import compose_meta
from dalle_cli.training.options import Train, check, options
from tests.tasks.conftest import LABEL, UNET

DVAE = {
    "model": {"type": "dvae", "vocab_size": 32, "n_hid": 8, "n_init": 8, "groups": 2, "num_res_blocks": 1},
    "task": {"type": "dvae", "usage_penalty": 0.1},
}
CLIP = {
    "model": {
        "type": "clip",
        "embed_dim": 8,
        "image": {"type": "modified-resnet", "size": 32, "layers": [1, 1, 1, 1], "width": 8, "heads": 2},
        "text": {"type": "clip-text", "vocab_size": 520, "context_length": 8, "width": 16, "depth": 2, "heads": 2},
    },
    "task": {"type": "clip"},
    "tokenizer": {"type": "clip", "path": "nowhere.json"},
}
PRIOR = {
    "model": {
        "type": "dalle",
        "vocab_size": 520,
        "context_length": 8,
        "image_vocab_size": 32,
        "grid_size": 8,
        "width": 16,
        "depth": 5,
        "heads": 2,
    },
    "task": {"type": "dalle"},
    "tokenizer": {"type": "dalle", "path": "nowhere.json"},
    "frozen": {"dvae": "nowhere"},
}
ADAMW = optim.Optim(lr=1e-3)
RECIPES = Path(__file__).parents[2] / "recipes"


def made(node, **model):
    """A task in shapes alone, and one in numbers."""
    node = {**node, "model": {**node["model"], **model}}
    companions = {}
    if "frozen" in node:
        companions["dvae"] = checkpoint.compose({"model": {**DVAE["model"]}, "task": {"type": "dvae"}}).model
    return compose_meta(node, []).task, checkpoint.compose(node, SimpleNamespace(vocab_size=520), companions)


STARTERS = [
    (path.parent.name, path.stem) for path in sorted(RECIPES.glob("*/*starter.yaml")) if "\nfrozen:" in path.read_text()
]


@pytest.mark.parametrize(("family", "name"), STARTERS)
def test_the_starters_are_estimated_with_the_networks_that_they_learn_beside(family, name):
    found = recipe.load(name, family)
    (step, *_) = estimate.measure(compose_meta(found, []).task, 2, found["data"]["size"], "float32")
    assert 0 < step.forward < step.training


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("node", [DVAE, CLIP, PRIOR], ids=["dvae", "clip", "prior"])
def test_a_step_in_shapes_alone_is_that_in_numbers(node, precision):
    shapes, task = made(node)
    step = estimate.measure(shapes, 4, 32, precision)[0]
    meter = MemoryMeter(task.parameters())
    for one in task.parameters():
        if one.requires_grad:
            one.register_post_accumulate_grad_hook(lambda p: meter.call(p.grad, "gradients"))
    with meter:
        batch = task.train().example(4, 32)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss, logs = task(batch, 0)
        loss.backward()
    del logs
    assert meter.flops // 4 == step.training
    # Kernels of normalisation keep their statistics in another type than their shapes say, where types are mixed.
    assert meter.peak["work"] == pytest.approx(step.activations, rel=0.01 if precision == "bf16" else 0)
    assert meter.peak["all"] == pytest.approx(step.peak, rel=0.01 if precision == "bf16" else 0)


def test_recomputing_activations_holds_less_and_computes_the_forward_pass_again():
    kept, recomputed = estimate.measure(made(PRIOR, gradient_checkpointing=False)[0], 4, 64, "float32", both=True)
    assert recomputed.activations < 0.6 * kept.activations
    assert recomputed.forward == kept.forward
    assert kept.training < recomputed.training <= kept.training + kept.forward
    other, own = estimate.measure(made(PRIOR, gradient_checkpointing=True)[0], 4, 64, "float32", both=True)[::-1]
    assert (own.activations, other.activations) == (recomputed.activations, kept.activations)
    assert len(estimate.measure(made(DVAE)[0], 4, 32, "float32", both=True)) == 1


def test_a_gpu_is_estimated_without_what_is_done_on_cpus_alone():
    """There the scores of attention are not held, and a norm of bfloat16 has its input in float32."""
    text = {**CLIP["model"]["text"], "context_length": 64}
    held = {}
    for context in (32, 64):
        node = {**CLIP, "model": {**CLIP["model"], "text": {**text, "context_length": context}}}
        for device in ("cpu", "cuda"):
            (step,) = estimate.measure(made(node)[0], 4, 32, "bf16", device)[:1]
            held[device, context] = step.activations
    grown = {device: held[device, 64] - held[device, 32] for device in ("cpu", "cuda")}
    scores = 2 * 2 * 2 * 4 * (64**2 - 32**2)  # bytes of bfloat16, layers, heads and samples
    assert grown["cpu"] - grown["cuda"] >= 0.9 * scores
    model = {**UNET, "attention_factors": [], "conditions": {"label": LABEL}}
    decoder = {"model": model, "task": {"type": "decoder", "size": 16, "prediction_type": "eps", "variance": "learned"}}
    steps = [estimate.measure(made(decoder)[0], 4, 16, "bf16", device)[0] for device in ("cpu", "cuda")]
    assert steps[0].activations < steps[1].activations


@pytest.mark.parametrize(
    ("family", "name", "gflop"),
    [("clip", "vit-b32", 8.73 + 5.81), ("dvae", "openai", 272 + 308)],
)
def test_published_sizes_compute_what_others_counted(family, name, gflop):
    """Against the figures counted on the published implementations, which leave the product of CLIP's attention out."""
    found = recipe.load(name, family, complete=False)
    task = compose_meta(found, []).task
    step = estimate.measure(task, 2, found["data"]["size"], "bf16")[0]
    attention = 12 * 4 * (50**2 * 768 + 77**2 * 512) / 1e9 if family == "clip" else 0
    assert step.forward / 1e9 == pytest.approx(gflop + attention, rel=0.002)


def test_memory_is_the_sum_of_its_parts():
    task = made(PRIOR)[0]
    trained = sum(parameter.nbytes for parameter in task.model.parameters())
    frozen = sum(parameter.nbytes for parameter in task.dvae.parameters())
    masks = sum(buffer.nbytes for buffer in task.model.buffers())
    step = estimate.Step(4, 0, 0, activations=1000, copies=0, peak=10 * trained)
    alone = estimate.device_memory(task, ADAMW, step, 1, "cuda")
    assert alone == {
        "program": 0, "weights": trained + frozen + masks, "moments": 2 * trained, "average": trained,
        "step": 10 * trained, "total": 14 * trained + frozen + masks,
    }  # fmt: skip
    assert estimate.device_memory(task, ADAMW, step, 2, "cuda")["total"] == alone["total"] + trained
    assert estimate.device_memory(task, optim.Optim(lr=1, type="sgd"), step, 1, "cuda")["moments"] == 0
    spread = estimate.sharded(task, ADAMW, step, 4, "bf16", "cuda")
    assert spread["moments"] == 2 * trained // 4
    assert spread["weights"] == pytest.approx(frozen + (trained + masks) / 4, abs=4)
    assert frozen < spread["total"] - spread["gathered"] - 1000 < frozen + 1.3 * trained + masks
    layer = sum(parameter.numel() for parameter in task.model.blocks[0].parameters())
    rest = sum(p.numel() for name, p in task.model.named_parameters() if not name.startswith("blocks."))
    assert spread["gathered"] == 4 * (rest + 2 * layer)
    assert spread["copies"] == 0
    spread = estimate.sharded(task, ADAMW, replace(step, copies=trained // 2), 4, "bf16", "cuda")
    assert spread["copies"] == trained // 2
    task.model.gradient_checkpointing = True  # then of a block at a time alone
    spread = estimate.sharded(task, ADAMW, replace(step, copies=trained // 2), 4, "bf16", "cuda")
    assert spread["copies"] == 2 * (rest + layer)


def test_pictures_encoded_before_count_where_they_hold_more():
    task = made(PRIOR)[0]
    step = estimate.Step(4, 0, 0, activations=0, copies=0, peak=0, encoding=1 << 40)
    assert estimate.device_memory(task, ADAMW, step, 1, "cpu")["total"] > 1 << 40


def test_a_batch_must_divide():
    assert estimate.samples_per_process(Train(steps=1, batch_size=12, grad_accum_steps=2), 3) == 2
    with pytest.raises(RecipeError, match="12 does not divide among 5 processes x 1 parts"):
        estimate.samples_per_process(Train(steps=1, batch_size=12), 5)


def test_a_forecast_follows_from_the_step():
    settings = Train(steps=100, batch_size=8, precision="float32")
    found = estimate.forecast(made(PRIOR)[0], ADAMW, settings, 64, 2, memory=4 << 30, flops_per_s=1e9, mfu=0.5)
    assert found["assumed"]["micro_batch_size"] == 4
    assert found["samples_per_s"] == 2 * 0.5e9 / found["flops"]["training"]
    assert found["days"] == pytest.approx(800 / found["samples_per_s"] / 86400)
    assert found["total_flops"] == 800 * found["flops"]["training"]
    assert found["ddp"]["fits"]
    most = found["max_batch_size"]["ddp"]
    assert most > 4
    settings = Train(steps=100, batch_size=2 * most, precision="float32")
    full = estimate.forecast(made(PRIOR)[0], ADAMW, settings, 64, 2, memory=4 << 30, flops_per_s=1e9, mfu=0.5)
    assert full["ddp"]["total"] == pytest.approx(4 << 30, rel=0.02)  # what it could take is what it holds


# ---- against real runs ----------------------------------------------------------------------------------------------

RUN = """
import re, sys
from pathlib import Path
from dalle_cli.training import loop, options
from omegaconf import OmegaConf
loop.fit(options.check(OmegaConf.to_container(OmegaConf.load("run.yaml"))), Path("run"), quiet=True)
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
"""


def peak_of_a_run(found, folder):
    """Bytes that a process of its own held at most while it trained two steps."""
    (folder / "run.yaml").write_text(to_yaml(found))
    ended = subprocess.run([sys.executable, "-c", RUN], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize(
    ("family", "name", "words"),
    [
        ("clip", "starter", ["train.batch_size=192", "model.gradient_checkpointing=false"]),
        pytest.param("dvae", "starter", ["train.batch_size=128"], marks=pytest.mark.slow),
        pytest.param("prior", "dalle1-starter", ["train.batch_size=64"], marks=pytest.mark.slow),
        pytest.param(
            "clip", "starter", ["train.batch_size=256", "model.gradient_checkpointing=true"], marks=pytest.mark.slow
        ),
    ],
)
def test_a_real_run_holds_what_was_estimated(tmp_path, family, name, words):
    words = [*words, "train.precision=float32", "train.steps=2", "train.preview_images=0"]
    words += ["data.type=scenes", "data.objects=shapes", "data.samples=400", "data.val_samples=8"]
    found = check(recipe.load(name, family, words, checkpoint.accepted_arguments))
    settings = options(found)[1]
    task = compose_meta(found, []).task
    step = estimate.measure(task, settings.batch_size, found["data"]["size"], "float32")[0]
    parts = estimate.device_memory(task, options(found)[0], step, 1, "cpu")
    assert parts["step"] > 0.35 * parts["total"]
    assert peak_of_a_run(found, tmp_path) == pytest.approx(parts["total"], rel=0.2)
