"""The tiny recipes, as a new user runs them: trained one after another, they draw what they are asked for."""

import json
import subprocess
import sys
import time

import pytest

from dalle_cli import images
from dalle_cli.data.scenes.glyphs import glyph_set
from dalle_cli.evaluate.judge import Judge

LIMIT = 240  # seconds for each recipe on two cores


def dalle(folder, *words):
    """Run a command as a user does; its standard output."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dalle_cli", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_tiny_recipes_draw_a_red_circle(tmp_path):
    for words in (
        ("train-tokenizer", "--recipe", "tiny", "--out", "checkpoints/tokenizer-tiny.json"),
        ("train-dvae", "--recipe", "tiny"),
        ("train-clip", "--recipe", "tiny"),
        ("train-prior", "--recipe", "dalle1-tiny"),
    ):
        _, taken = dalle(tmp_path, *words)
        assert taken < LIMIT, words
    lines, _ = dalle(tmp_path, "sample", "a red circle", "--recipe", "dalle1-tiny", "--rerank", "64", "--top", "8")
    judge = Judge(glyph_set("shapes"))
    pictures = [images.decode(tmp_path / json.loads(line)["path"]) for line in lines.splitlines()]
    right = [judge.verdict(picture, "a red circle").holds("object", "colour") for picture in pictures]
    assert len(right) == 8
    assert sum(right) >= 6, right
