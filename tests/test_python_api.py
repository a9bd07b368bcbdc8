"""What Python programs can call: load, load_system, fit."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import dalle_cli
from dalle_cli import checkpoint, recipe
from dalle_cli.exits import Failure

TINY = {
    "model": {"type": "dvae", "vocab_size": 16, "n_hid": 8, "n_init": 8, "groups": 2, "num_res_blocks": 1},
    "task": {"type": "dvae"},
    "data": {"type": "scenes", "objects": "shapes", "size": 16, "samples": 64, "num_workers": 0},
    "optim": {"lr": 1e-3},
    "train": {"steps": 3, "batch_size": 4, "preview_images": 0},
}


def python(code):
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return ended.stdout.strip()


def test_import_is_fast():
    code = "import time; start = time.process_time(); import dalle_cli; print(time.process_time() - start)"
    assert min(float(python(code)) for _ in range(5)) < 0.05


def test_import_loads_nothing_heavy():
    code = (
        "import sys; import dalle_cli; from dalle_cli import load, load_system, fit\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'omegaconf', 'typer') if name in sys.modules])"
    )
    assert python(code) == "[]"


def test_public_functions_are_documented():
    for name in dalle_cli.__all__:
        if name != "__version__":
            assert len(getattr(dalle_cli, name).__doc__) > 100


def test_load_embeds_texts_and_images():
    clip = dalle_cli.load("starter/clip")
    texts = clip.embed_texts(["a red apple", "a blue chair"])
    images = clip.embed_images(torch.zeros(3, 3, clip.model.visual.size, clip.model.visual.size))
    assert texts.shape[0] == 2
    assert images.shape == (3, texts.shape[1])
    assert texts.norm(dim=1) == pytest.approx(torch.ones(2), abs=1e-5)
    assert not clip.training


def test_load_refuses_unknown_names():
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint 'starter/clop'"):
        dalle_cli.load("starter/clop")


def test_load_system_generates_the_images_of_the_command(tmp_path):
    words = ["sample", "a red apple", "--seed", "3", "-n", "2", "--precision", "float32", "--out", str(tmp_path), "-q"]
    subprocess.run([sys.executable, "-m", "dalle_cli", *words], check=True, capture_output=True, timeout=300)
    written = [np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("*.png"))]
    system = dalle_cli.load_system(precision="float32")
    ((first, second),) = system.generate(["a red apple"], seed=3, num_images=2)
    assert first.size == (system.size, system.size)
    assert [np.array_equal(image, file) for image, file in zip((first, second), written)] == [True, True]
    ((alone,),) = system.generate(["a red apple"], seeds=[[3]])
    assert np.array_equal(alone, first)


def test_load_system_checks_options():
    with pytest.raises(recipe.RecipeError, match="did you mean 'temperature'"):
        dalle_cli.load_system("dalle1", temprature=1)
    with pytest.raises(recipe.RecipeError, match="did you mean 'glide'"):
        dalle_cli.load_system("glde")


def test_fit_trains_and_continues(tmp_path):
    path = dalle_cli.fit(TINY, tmp_path / "run", ["train.steps=2"], quiet=True)
    assert path == tmp_path / "run" / "model.safetensors"
    assert checkpoint.metadata(path)["step"] == 2
    assert dalle_cli.load(str(path)).model.encode(torch.zeros(1, 3, 16, 16)).shape == (1, 8, 8)
    with pytest.raises(Failure, match="another recipe"):
        dalle_cli.fit(TINY, tmp_path / "run", quiet=True)


def test_fit_takes_recipes_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train.steps=1", "train.batch_size=2", "train.preview_images=0", "data.samples=64", "data.num_workers=0"]
    assert str(dalle_cli.fit("dvae/tiny", "mine", words, quiet=True)) == "checkpoints/mine/model.safetensors"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("dvae/tinny", recipe.RecipeError, "did you mean 'tiny'"),
        ("tinny", recipe.RecipeError, "no recipe 'tinny'"),
        ("systems/glide", Failure, "only recipes of models"),
        ({"modle": {}}, recipe.RecipeError, "did you mean 'model'"),
    ],
)
def test_fit_refuses_other_recipes(tmp_path, name, error, message):
    with pytest.raises(error, match=message):
        dalle_cli.fit(name, tmp_path / "run")
