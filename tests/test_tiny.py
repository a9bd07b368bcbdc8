"""The tiny recipes, as a new user runs them: trained one after another, they draw what they are asked for."""

import json
import subprocess
import sys
import time

import pytest

from dalle_cli import images
from dalle_cli.data.scenes.objects import load_object_set
from dalle_cli.evaluate.checker import SceneChecker

LIMIT, UNCLIP_LIMIT = 240, 300  # seconds for each recipe on two cores


def dalle(folder, *words):
    """Run a command as a user does; its standard output."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dalle_cli", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, time.monotonic() - began


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all recipes are trained."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def train(folder):
    """Run a training command unless another test has; the seconds that it took, however long ago."""
    taken = {}

    def run(*words):
        if words not in taken:
            taken[words] = dalle(folder, *words)[1]
        return taken[words]

    run("train-tokenizer", "--recipe", "tiny", "--out", "checkpoints/tokenizer-tiny.json")
    return run


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_tiny_recipes_draw_a_red_circle(folder, train):
    for words in (
        ("train-dvae", "--recipe", "tiny"),
        ("train-clip", "--recipe", "tiny"),
        ("train-prior", "--recipe", "dalle1-tiny"),
    ):
        assert train(*words) < LIMIT, words
    drawn, _ = dalle(folder, "sample", "a red circle", "--recipe", "dalle1-tiny", "--rerank", "64", "--top", "8")
    assert right(folder, drawn, "a red circle") >= 6


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tiny_decoder_draws_shapes_and_paints_over_them(folder, train):
    assert train("train-decoder", "--recipe", "glide-tiny") < LIMIT
    for prompt in ("a red circle", "a blue star"):
        drawn, _ = dalle(folder, "sample", prompt, "--recipe", "glide-tiny", "-n", "8", "--out", prompt)
        assert right(folder, drawn, prompt) >= 6, prompt
    circle = "a red circle/000000-0-a-red-circle.png"
    painted, _ = dalle(
        folder,
        "inpaint",
        circle,
        "a green heart",
        "--box",
        "0,0,32,32",
        "--recipe",
        "glide-tiny",
        "-n",
        "4",
        "--out",
        "hearts",
    )
    assert right(folder, painted, "a green heart", 4) >= 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tiny_unclip_draws_a_red_circle(folder, train):
    for words in (
        ("train-clip", "--recipe", "tiny"),
        ("train-prior", "--recipe", "unclip-diffusion-tiny"),
        ("train-decoder", "--recipe", "unclip-decoder-tiny"),
    ):
        assert train(*words) < UNCLIP_LIMIT, words
    for prompt in ("a red circle", "a blue star"):
        drawn, _ = dalle(folder, "sample", prompt, "--recipe", "unclip-tiny", "-n", "8", "--out", f"unclip {prompt}")
        assert right(folder, drawn, prompt) >= 6, prompt


def right(folder, lines, prompt, count=8):
    """How many of the pictures of result lines show shape and color of their prompt."""
    checker = SceneChecker(load_object_set("shapes"))
    pictures = [images.decode(folder / json.loads(line)["path"]) for line in lines.splitlines()]
    assert len(pictures) == count
    return sum(checker.check(picture, prompt).correct("object", "color") for picture in pictures)
