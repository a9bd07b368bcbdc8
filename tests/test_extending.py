"""One new file, or one entry, adds a size, network, condition, loss, sampler, data source, command, metric, layout or
system: each is added to a copy of the package and used from the command line.

The files are in tests/fixtures/extensions, at the paths where they are added.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).parents[1]
EXTENSIONS = Path(__file__).parent / "fixtures" / "extensions"
SAMPLER = """

def one_step(process, denoise, x, steps, noise=None, on_step=None):
    prediction = denoise(x, torch.full((len(x),), steps[-1]))
    if on_step:
        on_step(steps[-1], prediction.x0)
    return prediction.x0


SAMPLERS["one-step"] = one_step
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Return a folder with a copy of the package that contains all extensions."""
    folder = tmp_path_factory.mktemp("extended")
    ignored = shutil.ignore_patterns("__pycache__", "starter")
    shutil.copytree(ROOT / "dalle_cli", folder / "dalle_cli", ignore=ignored)
    os.symlink(ROOT / "dalle_cli" / "starter", folder / "dalle_cli" / "starter")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    for source in sorted(EXTENSIONS.rglob("*.*")):
        target = folder / source.relative_to(EXTENSIONS)
        if source.is_file() and "__pycache__" not in source.parts:
            assert not target.exists(), f"{source} replaces a file"
            shutil.copy(source, target)
    samplers = folder / "dalle_cli" / "diffusion" / "samplers.py"
    samplers.write_text(samplers.read_text() + SAMPLER)
    return folder


@pytest.fixture
def run(package, tmp_path, monkeypatch):
    monkeypatch.delenv("DALLE_DATA", raising=False)

    def command(*words):
        ended = subprocess.run(
            [sys.executable, "-m", "dalle_cli", *map(str, words)], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(package)}, timeout=300, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    return command


def test_size_is_a_recipe(run):
    run("train-dvae", "--recipe", "mini", "--run", "mini", "-q")
    (result,) = run("inspect", "mini")
    assert (result["recipe"]["model"]["vocab_size"], result["step"]) == (16, 2)


def test_network_is_a_file(run):
    run("train-clip", "--recipe", "mean", "--run", "mean", "-q")
    (result,) = run("inspect", "mean")
    assert result["recipe"]["model"]["image"]["type"] == "mean-tower"


def test_condition_is_a_file(run):
    run("train-decoder", "--recipe", "caption-length", "--run", "length", "-q")
    words = ["--recipe", "checkpoints/length", "--steps", 2, "--precision", "float32", "-q"]
    run("sample", "red", "--out", "short", *words)
    run("sample", "a red circle on a blue background", "--out", "long", *words)
    (result,) = run("inspect", "length")
    assert result["recipe"]["model"]["conditions"]["length"]["scale"] == 0.02


def test_loss_is_a_file(run):
    run("train-dvae", "--recipe", "mini", "--run", "mse", "-q", "task.type=dvae-mse", "task.weight=2")
    (result,) = run("inspect", "mse")
    assert result["recipe"]["task"] == {"type": "dvae-mse", "weight": 2.0}


def test_sampler_is_an_entry(run, tmp_path):
    words = ["--steps", 4, "--guidance-scale", 1, "--out", "out", "--precision", "float32", "-q"]
    run("sample", "a red apple", "--recipe", "starter/decoder", "--sampler", "one-step", *words)
    (path,) = (tmp_path / "out").iterdir()
    (result,) = run("inspect", path)
    assert result["dalle"]["options"]["sampler"] == "one-step"


def test_system_is_a_file(run, tmp_path):
    results = run("sample", "a red apple", "--recipe", "plain-color", "-n", 3, "--out", "out", "-q")
    images = [Image.open(tmp_path / result["path"]) for result in results]
    assert {image.size for image in images} == {(12, 12)}
    assert len({image.getpixel((0, 0)) for image in images}) == 3
    assert max(image.getextrema()[0][1] for image in images) <= 128


def test_data_source_is_a_file(run, tmp_path):
    words = ["data.type=stripes", "data.stripes=3", "data.size=16"]
    run("data", "preview", *words, "--out", "sheet.png", "-n", 4)
    assert Image.open(tmp_path / "sheet.png").getextrema()[0] == (0, 255)
    (result,) = run("data", "check", *words)
    assert (result["good"], result["type"]) == (64, "stripes")


def test_command_is_a_file(run):
    assert run("count-words", "a", "red", "apple") == [{"words": 3}]


def test_metric_is_a_file(run, tmp_path):
    Image.new("RGB", (4, 4), (255, 255, 255)).save(tmp_path / "white.png")
    (result,) = run("evaluate", "brightness", "white.png")
    assert (result["brightness"], result["num_images"]) == (1.0, 1)


def test_layout_is_a_file(run, tmp_path):
    run("train-dvae", "--recipe", "mini", "--run", "codec", "-q")
    tensors = load_file(tmp_path / "checkpoints" / "codec" / "model.safetensors")
    save_file({f"codec.{key}": tensor for key, tensor in tensors.items()}, tmp_path / "published.safetensors")
    (result,) = run("import", "published.safetensors", "--out", "imported")
    assert result["layout"] == "prefixed-dvae"
    (result,) = run("inspect", "imported")
    assert result["num_parameters"] == sum(tensor.size for tensor in tensors.values())
