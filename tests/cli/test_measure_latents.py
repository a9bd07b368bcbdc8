import os
import random
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli.data.scenes.draw import draw, place
from dalle_cli.data.scenes.glyphs import glyph_set
from dalle_cli.evaluate import latents
from dalle_cli.generate import latent_editor
from dalle_cli.systems.unclip import UnCLIP
from tests.cli.conftest import one_line

SHAPES = ("--objects", "shapes", "-q")


@pytest.fixture
def measure(dalle, unclip):
    def run(command, *words, code=0, **how):
        ended = dalle("evaluate", command, "--recipe", unclip.recipe, "-n", 2, "--steps", 2, *SHAPES, *words, **how)
        assert ended.code == code, ended.err
        return ended

    return run


@pytest.fixture
def mirror(monkeypatch):
    """A system that gives back the picture that a shot was made of, at 64 px."""
    monkeypatch.setattr("dalle_cli.cli.measure_latents.trained_side", lambda name: 64)
    found = []
    look = latent_editor.LatentEditor.encode

    def looked(self, picture):
        latent = look(self, picture)
        found.append((latent.z, picture))
        return latent

    def drawn(self, shots):
        for shot in shots:
            near = max(found, key=lambda one: float(one[0] @ shot.z / one[0].norm()))
            yield near[1], {"psnr": 99.0} | (shot.measure(shot.z) if shot.measure else {})

    monkeypatch.setattr(latent_editor.LatentEditor, "encode", looked)
    monkeypatch.setattr(latent_editor.LatentEditor, "_decode_batch", drawn)


@pytest.fixture
def told(monkeypatch):
    """Embeddings of whole captions: the miniature CLIP reads the first syllables alone."""

    def embedded(self, texts):
        rows = [torch.randn(8, generator=torch.Generator().manual_seed(zlib.crc32(text.encode()))) for text in texts]
        return torch.stack(rows)

    monkeypatch.setattr(UnCLIP, "embed_texts", embedded)


def test_vary(measure, monkeypatch):
    one = measure("vary", "--sheet", "s.png").result
    assert one["near_db"] == 25
    assert one["kept"] == 0  # the networks are untrained
    assert {name: len(os.listdir(f"out/vary/{name}")) for name in ("given", "eta-0", "eta-1")} == {
        "given": 2, "eta-0": 2, "eta-1": 2,
    }  # fmt: skip
    assert Image.open("s.png").size[0] > 3 * 8
    assert one_line(measure("vary", code=73).err)
    assert measure("vary", "--skip-existing").result == one
    scaled = measure("vary", "--guidance-scale", 3, "--out", "b").result
    assert scaled["psnr"] == pytest.approx(one["psnr"], abs=0.02)  # guidance is of eta 1 alone
    name = os.listdir("b/eta-1")[0]
    assert not np.array_equal(*(np.asarray(Image.open(f"{out}/eta-1/{name}")) for out in ("b", "out/vary")))
    assert measure("vary", "--dry-run", "--out", "c").out == ""
    assert not os.path.exists("c")


def test_a_system_that_gives_pictures_back_keeps_objects(measure, mirror):
    one = measure("vary").result
    assert (one["psnr"], one["near"], one["kept"]) == (99, 1, 1)
    shown = measure("vary", "--overwrite", terminal=True).out
    assert "eta 1: object kept: 100.0%" in shown


def test_interpolate(measure):
    one = measure("interpolate", "--sheet", "s.png").result
    assert (one["noise"], one["frames"], one["ways"]) == ("slerp", 0, 0)
    assert len(os.listdir("out/interpolate/given")) == len(os.listdir("out/interpolate/drawn")) == 3
    assert os.path.getsize("s.png") > 0
    assert measure("interpolate", "--noise", "fixed", "--out", "b").result["noise"] == "fixed"


def test_ends_that_are_the_pictures_show_their_objects(measure, mirror):
    one = measure("interpolate").result
    assert (one["frames"], one["ways"]) == (1, 1)
    assert "both ends: 100.0%" in measure("interpolate", "--overwrite", terminal=True).out


def test_edit(measure, told):
    first, second = measure("edit", "--strength", "0.1,0.4", "--sheet", "s.png").results
    assert [one["strength"] for one in (first, second)] == [0.1, 0.4]
    assert first["edited"] == second["edited"] == 0
    assert len(os.listdir("out/edit/drawn")) == 4
    assert os.path.getsize("s.png") > 0
    assert "strength 0.3" in measure("edit", "--out", "b", terminal=True).out


def test_pictures_given_back_are_kept_and_not_turned(measure, mirror, told):
    one = measure("edit", "--strength", "0").result
    assert (one["edited"], one["turned"], one["kept"]) == (0, 0, 1)


def test_pictures_of_what_was_asked_are_edited(measure, mirror, told, monkeypatch):
    asked = iter([one.after for one in latents.edits(2, 64, glyph_set("shapes"))])

    def drawn(self, shots):
        for _ in shots:
            scene = next(asked)
            pixels = draw(scene, place(scene, random.Random(0)), 64, True)
            yield Image.fromarray(pixels), {}

    monkeypatch.setattr(latent_editor.LatentEditor, "_decode_batch", drawn)
    one = measure("edit").result
    assert (one["edited"], one["colour"], one["background"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("vary", "--recipe", "dalle1"), 2, "needs one of type unclip"),
        (("interpolate", "--recipe", "GLIDE"), 2, "needs one of type unclip"),
        (("edit", "--recipe", "GLIDE"), 2, "needs one of type unclip"),
        (("edit", "--strength", "2"), 2, "from 0 to 1"),
        (("interpolate", "--noise", "loud"), 2, "choose slerp or fixed"),
        (("vary", "--recipe", "unclip-tiny"), 3, "no checkpoint"),  # without the trained weights
        (("vary", "--recipe", "UNCLIP", "--objects", "shape"), 2, "did you mean 'shapes'"),
        (("vary", "--recipe", "UNCLIP", "--objects", "shapes", "--sheet", "s.jpg"), 2, "ends in .png"),
    ],
)
def test_mistakes_get_a_line_and_their_code(dalle, glide, unclip, words, code, said):
    known = {"GLIDE": glide.recipe, "UNCLIP": unclip.recipe}
    ended = dalle("evaluate", *(known.get(word, word) for word in words), "-n", 2, "-q")
    assert (ended.code, ended.out, one_line(ended.err)) == (code, "", True), ended.err
    assert said in ended.err
