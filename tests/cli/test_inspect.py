import json
import struct

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dalle_cli import checkpoint, images
from dalle_cli.generate.metadata import Origin, chunks
from dalle_cli.generate.requests import GenerationRequest, plan_images
from dalle_cli.models import models
from dalle_cli.text.learn import learn
from dalle_cli.training import state
from dalle_cli.training.ema import EMA
from tests.cli.conftest import one_line

RECIPE = {
    "model": {"type": "dvae", "vocab_size": 8, "n_hid": 4, "n_init": 4, "groups": 1, "num_res_blocks": 1},
    "task": {"type": "dvae"},
}


@pytest.fixture
def saved(tmp_path):
    """A small checkpoint with a vocabulary, and how many numbers it holds."""
    path = tmp_path / "run" / "model.safetensors"
    weights = models.build(RECIPE["model"]).state_dict()
    words = learn(["a red circle"] * 3, 514, "clip")
    checkpoint.save(path, weights, RECIPE, words, step=7, samples=70, dtype=torch.float16)
    return path, sum(value.numel() for value in weights.values())


def test_a_checkpoint_says_what_it_is(dalle, saved):
    path, count = saved
    found = dalle("inspect", path).result
    expected = {"kind": "checkpoint", "model": "dvae", "task": "dvae", "step": 7, "samples": 70, "values": count}
    assert expected.items() <= found.items()
    assert found["types"] == {"F16": found["tensors"]}
    assert found["tokenizer"] == {"tokenizer": "clip", "entries": 514, "published": False}
    assert found["recipe"] == RECIPE
    assert found["bytes"] == path.stat().st_size
    assert dalle("inspect", "run").result == {**found, "path": "run/model.safetensors"}  # a folder means its model


def test_text_for_people_leaves_the_recipe_to_show(dalle, saved):
    shown = dalle("inspect", "run", terminal=True).out.splitlines()
    assert "recipe     dalle show run/model.safetensors" in shown
    assert "samples    70" in shown
    assert not any("hidden" in line for line in shown)


def test_verify_reads_the_tensors(dalle, saved):
    path, _ = saved
    assert dalle("inspect", path, "--verify").result["checksum"] == "verified"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert dalle("inspect", path).result["checksum"] == "not verified"
    ended = dalle("inspect", path, "--verify")
    assert (ended.code, one_line(ended.err)) == (3, True)
    assert "checksum differs" in ended.err


def test_a_saved_state_counts_the_weights_once(dalle, tmp_path):
    model = models.build(RECIPE["model"])
    optimizer = torch.optim.AdamW(model.parameters())
    tensors = state.gather(model, EMA(model, 0.9), optimizer)
    path = state.save(tmp_path, RECIPE, 3, 30, tensors, {"skipped": 0}, keep=1)
    found = dalle("inspect", path).result
    assert (found["kind"], found["step"]) == ("saved state", 3)
    assert found["values"] == sum(value.numel() for value in model.parameters())


def test_a_vocabulary(dalle, tmp_path):
    learn(["a red circle"] * 3, 514, "clip").save(tmp_path / "words.json")
    found = dalle("inspect", "words.json").result
    assert found == {"kind": "tokenizer", "path": "words.json", "tokenizer": "clip", "entries": 514, "published": False}


def draw(path, prompt, command="sample"):
    (item,) = plan_images([GenerationRequest(prompt, None, {})], 1, 5)
    origin = Origin(command, "dalle1", {"temperature": 0.5}, {"transformer": "ab" * 32})
    images.save_png(Image.new("RGB", (20, 10)), path, chunks(origin, item, (20, 10)))
    return path


def test_a_picture_says_how_it_was_drawn(dalle, tmp_path):
    draw(tmp_path / "x.png", "an avocado chair \x1b[31m")
    found = dalle("inspect", "x.png").result
    assert (found["kind"], found["width"], found["height"]) == ("picture", 20, 10)
    assert (found["dalle"]["prompt"], found["dalle"]["seed"]) == ("an avocado chair \x1b[31m", 5)
    assert found["dalle"]["options"] == {"temperature": 0.5}
    assert found["parameters"].startswith("an avocado chair")
    shown = dalle("inspect", "x.png", terminal=True).out
    assert "prompt   an avocado chair ?[31m\n" in shown
    assert "again    dalle sample --like x.png\n" in shown
    draw(tmp_path / "y.png", "a cat", command="reconstruct")
    assert "again" not in dalle("inspect", "y.png", terminal=True).out


def test_pictures_of_other_programs(dalle, tmp_path):
    images.save_png(Image.new("RGB", (4, 4)), tmp_path / "plain.png")
    found = dalle("inspect", "plain.png").result
    assert (found["parameters"], found["dalle"]) == (None, None)
    assert "metadata  none\n" in dalle("inspect", "plain.png", terminal=True).out
    images.save_png(Image.new("RGB", (4, 4)), tmp_path / "other.png", {"parameters": "a cat\nSteps: 20"})
    assert dalle("inspect", "other.png").result["parameters"] == "a cat\nSteps: 20"


def header(fields: dict | list | str, data: bytes = b"") -> bytes:
    text = (fields if isinstance(fields, str) else json.dumps(fields)).encode()
    return struct.pack("<Q", len(text)) + text + data


def ours(**changes) -> dict:
    """The metadata of a checkpoint of ours, but for the seal."""
    fields = {"format": "dalle", "version": "1", "recipe": "{}", "step": "0", "samples": "0", "crc32": "0"}
    return {**fields, **changes}


LYING = {"__metadata__": ours(), "a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}
HOSTILE = {
    "empty": b"",
    "text": b"hello there, this is no model at all",
    "only-a-length": b"\xff" * 8,
    "huge-header": b"\xff" * 7 + b"\x00{" + b"x" * 100,
    "no-json": header("{not json"),
    "a-list": header("[]"),
    "foreign": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"abcd"),
    "metadata-is-a-list": header({"__metadata__": []}),
    "recipe-is-a-list": header({"__metadata__": ours(recipe="[]")}),
    "recipe-is-nested-deep": header({"__metadata__": ours(recipe="[" * 100_000)}),
    "step-is-text": header({"__metadata__": ours(step="many")}),
    "newer": header({"__metadata__": ours(version="99")}),
    "older-than-any": header({"__metadata__": ours(version="0")}),
    "tokenizer-is-a-list": header({"__metadata__": ours(tokenizer="[]")}),
    "tokenizer-of-no-kind": header({"__metadata__": ours(tokenizer='{"type": "x\\u001b[2J", "merges": []}')}),
    "merges-are-numbers": header({"__metadata__": ours(tokenizer='{"type": "clip", "merges": [1, 2]}')}),
    "merges-are-lists": header({"__metadata__": ours(tokenizer='{"type": "clip", "merges": [["a"]]}')}),
    "shape-lies": header(LYING, b"abcd"),
    "offsets-are-text": header({"__metadata__": ours(), "a": {"data_offsets": ["x", "y"]}}),
    "cut-json": b'{"type": "clip", "mer',
    "other-json": b'{"version": 1}',
    "deep-json": b'{"a":' * 100_000,
    "kind-is-a-list": b'{"type": ["clip"], "merges": []}',
    "broken-gzip": b"\x1f\x8b broken",
    "png-signature-alone": b"\x89PNG\r\n\x1a\n",
    "png-without-chunks": b"\x89PNG\r\n\x1a\n" + b"\x00" * 16,
    "png-of-endless-chunk": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 0xFFFFFFFF, b"tEXt") + b"dalle\x00{",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_give_one_line(dalle, tmp_path, name):
    (tmp_path / f"{name}.bin").write_bytes(HOSTILE[name])
    ended = dalle("inspect", f"{name}.bin")
    assert (ended.code, ended.out) == (3, "")
    assert one_line(ended.err)
    assert f"{name}.bin" in ended.err
    assert len(ended.err) < 500


def test_sections_of_the_wrong_kind_are_shown_as_they_are(dalle, tmp_path):
    recipe = {"model": "\x1b[2J", "task": [], "frozen": 3}
    metadata = ours(recipe=json.dumps(recipe))
    save_file({"a": torch.zeros(3)}, tmp_path / "odd.safetensors", metadata=metadata)
    found = dalle("inspect", "odd.safetensors").result
    assert (found["model"], found["task"], found["recipe"]) == (None, None, recipe)
    assert dalle("inspect", "odd.safetensors", terminal=True).code == 0


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_a_file_that_was_cut_short_gives_one_line(dalle, saved, tmp_path, share):
    path, _ = saved
    whole = path.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: int(share * len(whole))])
    ended = dalle("inspect", "cut.safetensors")
    assert (ended.code, one_line(ended.err)) == (3, True)


def test_what_is_not_there(dalle, tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("nothing", "folder", "starter/nothing", ""):
        ended = dalle("inspect", name)
        assert (ended.code, one_line(ended.err)) == (3, True), name
