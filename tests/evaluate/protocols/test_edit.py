import random
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli.data.scenes.grammar import held_out, parse
from dalle_cli.data.scenes.objects import BACKGROUNDS, COLORS, load_object_set
from dalle_cli.data.scenes.render import place
from dalle_cli.data.scenes.render import render as render_scene
from dalle_cli.evaluate.protocols import edit as module
from dalle_cli.evaluate.protocols.edit import Outcome, check_edit, edits, summarize
from dalle_cli.generate import latent_editor
from dalle_cli.systems.unclip import UnCLIP
from tests.cli.conftest import one_line
from tests.evaluate.conftest import checker_of

SHAPES = load_object_set("shapes")


def render(scene):
    return render_scene(scene, place(scene, random.Random(0)), 64, True)


def test_edits_change_one_attribute():
    scenes = list(edits(12, 32, SHAPES))
    assert [one.attribute for one in scenes] == ["color", "background"] * 6
    for one in scenes:
        assert tuple(parse(text, SHAPES) for text in one.captions) == (one.before, one.after)
        (obj,), (new,) = one.before.objects, one.after.objects
        assert not held_out(one.before)
        assert not held_out(one.after)
        if one.attribute == "color":
            assert new == replace(obj, color=new.color)
            assert new.color != obj.color
            assert new.color in COLORS
            assert (one.before.background, one.after.background) == (None, None)
        else:
            assert new == obj
            assert one.before.background != one.after.background
            assert {one.before.background, one.after.background} <= set(BACKGROUNDS)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(scenes, edits(12, 32, SHAPES)))


def test_no_scenes_to_edit_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "held_out", lambda scene: True)
    with pytest.raises(ValueError, match="'shapes' give no scenes to edit"):
        list(edits(1, 8, SHAPES))


def test_edit_must_change_the_attribute_and_keep_the_object():
    checker, scenes = checker_of("shapes"), list(edits(10, 64, SHAPES))
    done = [check_edit(checker, one, render(one.after)) for one in scenes]
    assert sum(one.edited for one in done) >= 9
    nothing = [check_edit(checker, one, one.image) for one in scenes]
    assert not any(one.attribute_changed for one in nothing)
    assert sum(one.object_kept for one in nothing) >= 9
    other = next(name for name in SHAPES.names if name not in ("circle", scenes[1].after.objects[0].name))
    lost = replace(scenes[1].after, objects=(replace(scenes[1].after.objects[0], name=other),))
    result = check_edit(checker, scenes[1], render(lost))
    assert (result.attribute, result.attribute_changed, result.object_kept) == ("background", True, False)


def test_edits_are_counted_by_attribute():
    rows = [Outcome("color", True, True), Outcome("color", True, False), Outcome("background", False, True)]
    assert {name: (one.successes, one.trials) for name, one in summarize(rows).items()} == {
        "edited": (1, 3), "attribute_changed": (2, 3), "object_kept": (2, 3), "color": (1, 2), "background": (0, 1),
    }  # fmt: skip


@pytest.fixture
def distinct_texts(monkeypatch):
    """Embeddings of whole captions, of which the miniature CLIP reads only the first syllables."""

    def embed_texts(self, texts):
        rows = [torch.randn(8, generator=torch.Generator().manual_seed(zlib.crc32(text.encode()))) for text in texts]
        return torch.stack(rows)

    monkeypatch.setattr(UnCLIP, "embed_texts", embed_texts)


def test_command_compares_strengths(evaluate_latents, distinct_texts):
    first, second = evaluate_latents("edit", "--strength", "0.1,0.4", "--sheet", "s.png").results
    assert [one["strength"] for one in (first, second)] == [0.1, 0.4]
    assert first["edited"] == second["edited"] == 0
    assert len(list(Path("out/edit/generated").iterdir())) == 4
    assert Path("s.png").stat().st_size > 0
    assert "strength 0.3" in evaluate_latents("edit", "--out", "b", terminal=True).out


def test_identity_keeps_objects_and_changes_nothing(evaluate_latents, identity, distinct_texts):
    line = evaluate_latents("edit", "--strength", "0").result
    assert (line["edited"], line["attribute_changed"], line["object_kept"]) == (0, 0, 1)


def test_rendered_edits_count(evaluate_latents, identity, distinct_texts, monkeypatch):
    expected = iter([one.after for one in edits(2, 64, SHAPES)])

    def decode(self, requests):
        for _ in requests:
            yield Image.fromarray(render(next(expected))), {}

    monkeypatch.setattr(latent_editor.LatentEditor, "_decode_batch", decode)
    line = evaluate_latents("edit").result
    assert (line["edited"], line["color"], line["background"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("words", "message"), [(("--recipe", "glide"), "needs one of type unclip"), (("--strength", "2"), "from 0 to 1")]
)
def test_usage_errors_are_one_line(evaluate_latents, words, message):
    ended = evaluate_latents("edit", *words, code=2)
    assert (ended.out, one_line(ended.err)) == ("", True), ended.err
    assert message in ended.err
