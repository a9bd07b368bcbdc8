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
from tests.convert.test_importing import CLIP, published

RECIPE = {
    "model": {"type": "dvae", "vocab_size": 8, "n_hid": 4, "n_init": 4, "groups": 1, "num_res_blocks": 1},
    "task": {"type": "dvae"},
}


@pytest.fixture
def saved(tmp_path):
    """Return the path of a small checkpoint with a tokenizer, and its number of parameters."""
    path = tmp_path / "run" / "model.safetensors"
    weights = models.build(RECIPE["model"]).state_dict()
    words = learn(["a red circle"] * 3, 514, "clip")
    checkpoint.save(path, weights, RECIPE, words, step=7, samples=70, dtype=torch.float16)
    return path, sum(value.numel() for value in weights.values())


def test_checkpoint(dalle, saved):
    path, count = saved
    found = dalle("inspect", path).result
    expected = {
        "kind": "checkpoint",
        "model": "dvae",
        "task": "dvae",
        "step": 7,
        "samples": 70,
        "num_parameters": count,
    }
    assert expected.items() <= found.items()
    assert found["dtypes"] == {"float16": found["tensors"]}
    assert found["tokenizer"] == {"tokenizer": "clip", "vocab_size": 514, "published": False}
    assert found["recipe"] == RECIPE
    assert found["bytes"] == path.stat().st_size
    assert dalle("inspect", "run").result == {**found, "path": "run/model.safetensors"}  # a folder means its model


def test_terminal_output_points_to_show(dalle, saved):
    shown = dalle("inspect", "run", terminal=True).out.splitlines()
    assert "recipe          dalle show run/model.safetensors" in shown
    assert "samples         70" in shown
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


def test_saved_state_counts_weights_once(dalle, tmp_path):
    model = models.build(RECIPE["model"])
    optimizer = torch.optim.AdamW(model.parameters())
    tensors = state.gather(model, EMA(model, 0.9), optimizer)
    path = state.save(tmp_path, RECIPE, 3, 30, tensors, {"skipped": 0}, keep=1)
    found = dalle("inspect", path).result
    assert (found["kind"], found["step"]) == ("saved state", 3)
    assert found["num_parameters"] == sum(value.numel() for value in model.parameters())


def test_tokenizer(dalle, tmp_path):
    learn(["a red circle"] * 3, 514, "clip").save(tmp_path / "words.json")
    found = dalle("inspect", "words.json").result
    assert found == {
        "kind": "tokenizer",
        "path": "words.json",
        "tokenizer": "clip",
        "vocab_size": 514,
        "published": False,
    }


def save_image(path, prompt, command="sample"):
    (item,) = plan_images([GenerationRequest(prompt, None, {})], 1, 5)
    origin = Origin(command, "dalle1", {"temperature": 0.5}, {"transformer": "ab" * 32})
    images.save_png(Image.new("RGB", (20, 10)), path, chunks(origin, item, (20, 10)))
    return path


def test_generated_image(dalle, tmp_path):
    save_image(tmp_path / "x.png", "an avocado chair \x1b[31m")
    found = dalle("inspect", "x.png").result
    assert (found["kind"], found["width"], found["height"]) == ("image", 20, 10)
    assert (found["dalle"]["prompt"], found["dalle"]["seed"]) == ("an avocado chair \x1b[31m", 5)
    assert found["dalle"]["options"] == {"temperature": 0.5}
    assert found["parameters"].startswith("an avocado chair")
    shown = dalle("inspect", "x.png", terminal=True).out
    assert "prompt     an avocado chair ?[31m\n" in shown
    assert "reproduce  dalle sample --reproduce x.png\n" in shown
    save_image(tmp_path / "y.png", "a cat", command="reconstruct")
    assert "reproduce" not in dalle("inspect", "y.png", terminal=True).out


def test_images_of_other_programs(dalle, tmp_path):
    images.save_png(Image.new("RGB", (4, 4)), tmp_path / "plain.png")
    found = dalle("inspect", "plain.png").result
    assert (found["parameters"], found["dalle"]) == (None, None)
    assert "metadata  none\n" in dalle("inspect", "plain.png", terminal=True).out
    images.save_png(Image.new("RGB", (4, 4)), tmp_path / "other.png", {"parameters": "a cat\nSteps: 20"})
    assert dalle("inspect", "other.png").result["parameters"] == "a cat\nSteps: 20"


def header(fields: dict | list | str, data: bytes = b"") -> bytes:
    text = (fields if isinstance(fields, str) else json.dumps(fields)).encode()
    return struct.pack("<Q", len(text)) + text + data


def metadata(**changes) -> dict:
    """Return the metadata of a checkpoint, without the seal."""
    fields = {"format": "dalle", "version": "1", "recipe": "{}", "step": "0", "samples": "0", "crc32": "0"}
    return {**fields, **changes}


LYING = {"__metadata__": metadata(), "a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}
MALFORMED = {
    "empty": b"",
    "text": b"hello there, this is no model at all",
    "only-a-length": b"\xff" * 8,
    "huge-header": b"\xff" * 7 + b"\x00{" + b"x" * 100,
    "no-json": header("{not json"),
    "a-list": header("[]"),
    "foreign": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"abcd"),
    "metadata-is-a-list": header({"__metadata__": []}),
    "recipe-is-a-list": header({"__metadata__": metadata(recipe="[]")}),
    "recipe-is-nested-deep": header({"__metadata__": metadata(recipe="[" * 100_000)}),
    "step-is-text": header({"__metadata__": metadata(step="many")}),
    "newer": header({"__metadata__": metadata(version="99")}),
    "older-than-any": header({"__metadata__": metadata(version="0")}),
    "tokenizer-is-a-list": header({"__metadata__": metadata(tokenizer="[]")}),
    "tokenizer-of-no-kind": header({"__metadata__": metadata(tokenizer='{"type": "x\\u001b[2J", "merges": []}')}),
    "merges-are-numbers": header({"__metadata__": metadata(tokenizer='{"type": "clip", "merges": [1, 2]}')}),
    "merges-are-lists": header({"__metadata__": metadata(tokenizer='{"type": "clip", "merges": [["a"]]}')}),
    "shape-lies": header(LYING, b"abcd"),
    "offsets-are-text": header({"__metadata__": metadata(), "a": {"data_offsets": ["x", "y"]}}),
    "cut-json": b'{"type": "clip", "mer',
    "other-json": b'{"version": 1}',
    "deep-json": b'{"a":' * 100_000,
    "kind-is-a-list": b'{"type": ["clip"], "merges": []}',
    "broken-gzip": b"\x1f\x8b broken",
    "png-signature-alone": b"\x89PNG\r\n\x1a\n",
    "png-without-chunks": b"\x89PNG\r\n\x1a\n" + b"\x00" * 16,
    "png-of-endless-chunk": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 0xFFFFFFFF, b"tEXt") + b"dalle\x00{",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_give_one_line(dalle, tmp_path, name):
    (tmp_path / f"{name}.bin").write_bytes(MALFORMED[name])
    ended = dalle("inspect", f"{name}.bin")
    assert (ended.code, ended.out) == (3, "")
    assert one_line(ended.err)
    assert f"{name}.bin" in ended.err
    assert len(ended.err) < 500


def test_invalid_sections_are_shown(dalle, tmp_path):
    recipe = {"model": "\x1b[2J", "task": [], "frozen": 3}
    text = metadata(recipe=json.dumps(recipe))
    save_file({"a": torch.zeros(3)}, tmp_path / "odd.safetensors", metadata=text)
    found = dalle("inspect", "odd.safetensors").result
    assert (found["model"], found["task"], found["recipe"]) == (None, None, recipe)
    assert dalle("inspect", "odd.safetensors", terminal=True).code == 0


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.99])
def test_truncated_file_gives_one_line(dalle, saved, tmp_path, fraction):
    path, _ = saved
    content = path.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: int(fraction * len(content))])
    ended = dalle("inspect", "cut.safetensors")
    assert (ended.code, one_line(ended.err)) == (3, True)


def test_missing_file(dalle, tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("nothing", "folder", "starter/nothing", ""):
        ended = dalle("inspect", name)
        assert (ended.code, one_line(ended.err)) == (3, True), name


@pytest.mark.parametrize("name", ["clip.pt", "clip.safetensors", "folder"])
def test_published_weights_are_described_by_their_layout(dalle, tmp_path, name):
    state = published()
    target = tmp_path / ("folder/pytorch_model.bin" if name == "folder" else name)
    target.parent.mkdir(exist_ok=True)
    (save_file if name.endswith("safetensors") else torch.save)(state, target)
    result = dalle("inspect", name).result
    assert (result["kind"], result["layout"]) == ("published weights", "openai-clip")
    assert (result["recipe"]["model"], result["published"]) == (CLIP, None)
    assert result["num_parameters"] == sum(tensor.numel() for tensor in state.values())
    assert sum(result["dtypes"].values()) == result["tensors"] == len(state)
    assert result["dtypes"].keys() == {"float16", "float32"}
    assert "layout          openai-clip\n" in dalle("inspect", name, terminal=True).out


def test_unsupported_weights_are_named(dalle, tmp_path):
    torch.save({"bert.embeddings.word_embeddings.weight": torch.ones(1)}, tmp_path / "bert.pt")
    ended = dalle("inspect", "bert.pt")
    assert (ended.code, ended.out, one_line(ended.err)) == (3, "", True)
    assert "weights of BERT are not supported" in ended.err
