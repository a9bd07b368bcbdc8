import json
import random
import struct

import pytest
import torch
from safetensors.torch import save_file

from dalle_cli import checkpoint
from dalle_cli.checkpoint import CheckpointError
from dalle_cli.models import models
from dalle_cli.registry import RecipeError
from dalle_cli.text.learn import learn

UNET = {
    "type": "unet",
    "base_channels": 32,
    "channel_mult": [1],
    "num_res_blocks": 1,
    "attention_factors": [],
    "head_dim": 32,
}
LABEL = {"type": "label-condition", "classes": 3}
INPAINT = {"type": "inpaint-condition"}
DVAE = {
    "model": {"type": "dvae", "vocab_size": 8, "n_hid": 4, "n_init": 4, "groups": 2, "num_res_blocks": 1},
    "task": {"type": "dvae"},
}
WORDS = learn(["a red circle"] * 3, 516, "dalle")


def dalle_recipe(dvae):
    model = {
        "type": "dalle",
        "vocab_size": WORDS.vocab_size,
        "context_length": 4,
        "image_vocab_size": 8,
        "grid_size": 2,
        "width": 8,
    }
    return {
        "model": {**model, "depth": 1, "heads": 1},
        "task": {"type": "dalle"},
        "tokenizer": {"type": "dalle", "path": "elsewhere.json"},
        "frozen": {"dvae": str(dvae)},
    }


@pytest.fixture
def dvae(tmp_path):
    path = tmp_path / "dvae" / checkpoint.FILE
    task = checkpoint.compose(DVAE)
    checkpoint.save(path, task.model.state_dict(), DVAE, step=3, samples=30)
    return path


def test_checkpoint_is_self_contained(dvae):
    recipe = dalle_recipe(dvae)
    task = checkpoint.compose(recipe, WORDS)
    path = dvae.parent.parent / "dalle.safetensors"
    checkpoint.save(path, task.model.state_dict(), recipe, WORDS, step=5, samples=50)
    back = checkpoint.load(str(path), "dalle")
    assert not back.training
    assert back.tokenizer.encode("a red circle") == WORDS.encode("a red circle")
    for name, value in task.model.state_dict().items():
        assert torch.equal(back.model.state_dict()[name], value)
    assert torch.equal(
        back.dvae.state_dict()["encoder.blocks.input.w"], checkpoint.read_tensors(dvae)["encoder.blocks.input.w"]
    )
    assert not any(parameter.requires_grad for parameter in back.dvae.parameters())
    found = checkpoint.metadata(path)
    assert (found["step"], found["samples"], found["recipe"]) == (5, 50, recipe)


def test_load_meta_has_shapes_only(dvae, monkeypatch):
    recipe = dalle_recipe(dvae)
    task = checkpoint.compose(recipe, WORDS)
    path = dvae.parent.parent / "dalle.safetensors"
    checkpoint.save(path, task.model.state_dict(), recipe, WORDS)
    monkeypatch.setattr(checkpoint, "read_tensors", lambda path: pytest.fail("weights were read"))
    found = checkpoint.load_meta(str(path))
    assert {name: value.shape for name, value in found.named_parameters()} == {
        name: value.shape for name, value in task.named_parameters()
    }
    assert {value.device.type for value in found.parameters()} == {"meta"}
    assert (found.training, found.tokenizer.vocab_size) == (False, WORDS.vocab_size)


def test_16_bit_files_load_as_float32(dvae):
    path = dvae.with_name("half.safetensors")
    checkpoint.save(path, checkpoint.read_tensors(dvae), DVAE, dtype=torch.float16)
    assert path.stat().st_size < 0.8 * dvae.stat().st_size
    assert all(value.dtype == torch.float32 for value in checkpoint.load(str(path)).state_dict().values())


def test_where_checkpoints_are_looked_for(dvae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "checkpoints" / "mine" / checkpoint.FILE
    run.parent.mkdir(parents=True)
    run.write_bytes(dvae.read_bytes())
    assert checkpoint.resolve(str(dvae)) == dvae
    assert checkpoint.resolve(str(dvae.parent)) == dvae
    assert checkpoint.resolve("mine").samefile(run)
    assert checkpoint.resolve("starter/dvae").name == "dvae.safetensors"
    with pytest.raises(CheckpointError, match="no checkpoint 'yours': neither a file, a run folder"):
        checkpoint.resolve("yours")


def cut(data):
    return data[:-7]


def grown(data):
    return data + b"more"


def flipped(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def empty(data):
    return b""


def text(data):
    return b"model: dvae\n" * 9


def endless(data):
    return struct.pack("<Q", 1 << 60) + data[8:]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "cut short or padded"),
        (grown, "cut short or padded"),
        (flipped, "damaged: its tensors are not those that were written"),
        (empty, "not a safetensors file, or cut short"),
        (text, "not a safetensors file"),
        (endless, "not a safetensors file, or cut short"),
    ],
)
def test_damaged_file_is_refused(dvae, damage, said):
    dvae.write_bytes(damage(dvae.read_bytes()))
    with pytest.raises(CheckpointError, match=f"{dvae}: {said}"):
        checkpoint.load(str(dvae))


def test_any_damage_is_detected(dvae, monkeypatch):
    monkeypatch.setattr(checkpoint, "compose", None)
    whole, chance = dvae.read_bytes(), random.Random(0)
    damaged = [whole[: chance.randrange(len(whole))] for _ in range(100)] + [whole[: len(whole) // 2]]
    header = struct.unpack("<Q", whole[:8])[0] + 8
    for place in [chance.randrange(8 * end) for end in (header, len(whole)) for _ in range(300)]:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    for data in damaged:
        dvae.write_bytes(data)
        with pytest.raises(CheckpointError, match=str(dvae)):
            checkpoint.load(str(dvae))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "pt"}, "a safetensors file, but not of dalle"),
        ({"version": "99"}, r"written by a newer dalle \(format 99, here 2\)"),
        ({"version": "x"}, "the header is damaged"),
        ({"recipe": "[]"}, "the header is damaged"),
        ({"recipe": "{"}, "the header is damaged"),
        ({"step": "4"}, "the header is damaged"),  # the seal no longer fits
    ],
)
def test_false_header_is_refused(dvae, change, said):
    data = dvae.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] |= change
    raw = json.dumps(header).encode()
    dvae.write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + length :])
    with pytest.raises(CheckpointError, match=f"{dvae}: {said}"):
        checkpoint.load(str(dvae))


def test_wrong_kind_or_shape_is_refused(dvae, tmp_path):
    with pytest.raises(CheckpointError, match="holds a 'dvae', where a 'clip' is needed"):
        checkpoint.load(str(dvae), "clip")
    other = {**DVAE, "model": {**DVAE["model"], "n_hid": 8}}
    checkpoint.save(tmp_path / "other.safetensors", checkpoint.read_tensors(dvae), other)
    with pytest.raises(CheckpointError, match=r"does not fit its recipe"):
        checkpoint.load(str(tmp_path / "other.safetensors"))
    fewer = checkpoint.read_tensors(dvae)
    del fewer["encoder.blocks.input.b"]
    checkpoint.save(tmp_path / "fewer.safetensors", fewer, DVAE)
    with pytest.raises(CheckpointError, match=r"does not fit its recipe: no encoder\.blocks\.input\.b"):
        checkpoint.load(str(tmp_path / "fewer.safetensors"))


def test_foreign_safetensors_are_recognized(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="a safetensors file, but not of dalle"):
        checkpoint.load(str(tmp_path / "foreign.safetensors"))


def test_unknown_frozen_models_are_refused(dvae):
    recipe = dalle_recipe(dvae)
    with pytest.raises(RecipeError, match=r"frozen\.clip: task 'dalle' takes no 'clip'"):
        checkpoint.check({**recipe, "frozen": {"clip": "x", "dvae": "y"}})
    dalle = dvae.parent / "dalle.safetensors"
    checkpoint.save(dalle, checkpoint.compose(recipe, WORDS).model.state_dict(), recipe, WORDS)
    with pytest.raises(RecipeError, match=r"frozen\.dvae: a DALLE, where task 'dalle' needs a DVAE"):
        checkpoint.compose({**recipe, "frozen": {"dvae": str(dalle)}}, WORDS)


def test_nothing_half_written_remains(dvae, monkeypatch):
    before = dvae.read_bytes()

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(dvae, {}, DVAE)
    assert dvae.read_bytes() == before
    assert [path.name for path in dvae.parent.iterdir()] == [dvae.name]


def test_initial_weights_of_a_smaller_network(tmp_path):
    base = {"model": UNET | {"conditions": {"label": LABEL}}}
    state = models.build(base["model"]).state_dict()
    checkpoint.save(tmp_path / "base.safetensors", state, base)
    wider = {"model": UNET | {"conditions": {"label": LABEL, "inpaint": INPAINT}}}
    found = checkpoint.initial_weights(str(tmp_path / "base.safetensors"), wider)
    key = "input_blocks.0.0.weight"
    assert torch.equal(found[key][:, :3], state[key])
    assert (found[key][:, 3:] == 0).all()
    assert found[key].shape[1] == 7
    checkpoint.save(tmp_path / "wider.safetensors", found, wider)
    with pytest.raises(CheckpointError, match=rf"train\.init_from: .* does not fit the model: {key}"):
        checkpoint.initial_weights(str(tmp_path / "wider.safetensors"), base)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("checkpoints/decoder-glide-tiny", "train-decoder --recipe glide-tiny"),
        ("clip-tiny", "train-clip --recipe tiny"),
    ],
)
def test_untrained_recipes_name_their_command(tmp_path, monkeypatch, name, command):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match=f"train it first, dalle {command}$"):
        checkpoint.resolve(name)
    with pytest.raises(checkpoint.CheckpointError, match="neither a file"):
        checkpoint.resolve("checkpoints/clip-mine")
