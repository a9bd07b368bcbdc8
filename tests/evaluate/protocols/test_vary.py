from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import one_line


def test_command_measures_both_ends_of_eta(evaluate_latents):
    line = evaluate_latents("vary", "--sheet", "s.png").result
    assert (line["threshold_db"], line["num_images"]) == (25, 2)
    assert line["object_kept"] == 0  # the networks are untrained
    folders = ("inputs", "eta-0", "eta-1")
    assert [len(list(Path("out/vary", name).iterdir())) for name in folders] == [2, 2, 2]
    assert Image.open("s.png").size[0] > 3 * 8
    assert one_line(evaluate_latents("vary", code=73).err)
    assert evaluate_latents("vary", "--skip-existing").result == line
    assert evaluate_latents("vary", "--dry-run", "--out", "c").out == ""
    assert not Path("c").exists()


def test_guidance_applies_at_eta_1_only(evaluate_latents):
    line = evaluate_latents("vary").result
    guided = evaluate_latents("vary", "--guidance-scale", 3, "--out", "b").result
    assert guided["psnr"] == pytest.approx(line["psnr"], abs=0.02)
    name = next(Path("b/eta-1").iterdir()).name
    assert not np.array_equal(*(np.asarray(Image.open(f"{out}/eta-1/{name}")) for out in ("b", "out/vary")))


def test_identity_keeps_objects(evaluate_latents, identity):
    line = evaluate_latents("vary").result
    assert (line["psnr"], line["above_threshold"], line["object_kept"]) == (99, 1, 1)
    assert "eta 1: object kept: 100.0%" in evaluate_latents("vary", "--overwrite", terminal=True).out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--recipe", "glide"), 2, "needs one of type unclip"),
        (("--recipe", "unclip-tiny"), 3, "no checkpoint"),  # without the trained weights
        (("--objects", "shape"), 2, "did you mean 'shapes'"),
        (("--sheet", "s.jpg"), 2, "ends in .png"),
    ],
)
def test_usage_errors_are_one_line(evaluate_latents, words, code, message):
    ended = evaluate_latents("vary", *words, code=code)
    assert (ended.out, one_line(ended.err)) == ("", True), ended.err
    assert message in ended.err
