import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.data import loader
from dalle_cli.data.source import DataError
from dalle_cli.exits import Failure
from dalle_cli.models.dvae import DVAE
from dalle_cli.text.learn import learn
from dalle_cli.training import image_tokens
from dalle_cli.training.loop import fit
from dalle_cli.training.options import check

DATA = {"type": "scenes", "objects": "shapes", "size": 16, "samples": 60, "val_samples": 10}


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(image_tokens, "FILE_SAMPLES", 25)
    monkeypatch.setattr(image_tokens, "BATCH_SIZE", 10)
    dvae = {
        "model": {"type": "dvae", "vocab_size": 16, "n_hid": 8, "n_init": 8, "groups": 3, "num_res_blocks": 1},
        "task": {"type": "dvae"},
    }
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "dvae.safetensors", checkpoint.compose(dvae).model.state_dict(), dvae)
    learn(["a red circle"] * 3, 516, "dalle").save(tmp_path / "words.json")
    model = {
        "type": "dalle",
        "vocab_size": 516,
        "context_length": 8,
        "image_vocab_size": 16,
        "grid_size": 4,
        "width": 16,
        "depth": 2,
        "heads": 2,
    }
    return check(
        {
            "model": model,
            "task": {"type": "dalle"},
            "tokenizer": {"type": "dalle", "path": str(tmp_path / "words.json")},
            "frozen": {"dvae": str(tmp_path / "dvae.safetensors")},
            "data": DATA,
            "optim": {"type": "adamw", "lr": 1e-3},
            "train": {"steps": 3, "batch_size": 5, "precision": "float32", "preview_images": 2},
        }
    )


def test_a_run_encodes_its_pictures_once(tmp_path, recipe, capsys):
    run = tmp_path / "run"
    assert fit(recipe, run) == 0
    files = sorted((run / "codes").glob("codes-*"))
    assert [path.name for path in files] == [f"codes-0000{i}.safetensors" for i in range(3)]
    made = [path.stat().st_mtime_ns for path in files]
    files[1].unlink()  # as if the run had been killed while it encoded
    assert fit(recipe | {"train": {**recipe["train"], "steps": 4}}, run, resume="force") == 0
    again = [path.stat().st_mtime_ns for path in files]
    assert [a == b for a, b in zip(again, made)] == [True, False, True]


def test_a_run_that_is_to_stop_does_not_wait_for_the_encoding(tmp_path, recipe, monkeypatch):
    whole, run, calls = DVAE.encode, tmp_path / "run", []

    def signalled(self, image):
        calls.append(len(image))
        if len(calls) == 6:  # two to see what they hold, and the first batch of the second file
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, image)

    with monkeypatch.context() as patch:
        patch.setattr(DVAE, "encode", signalled)
        with pytest.raises(Failure, match="stopped while encoding; the same command continues") as stopped:
            fit(recipe, run, quiet=True)
    assert stopped.value.code == 75
    assert len(calls) == 6
    assert [path.name for path in sorted((run / "codes").glob("codes-*"))] == ["codes-00000.safetensors"]
    assert fit(recipe, run, quiet=True) == 0


def test_a_grid_that_is_not_the_dvae_s_is_said_of_cached_codes_too(tmp_path, recipe):
    wrong = {**recipe, "model": {**recipe["model"], "grid_size": 2}}
    with pytest.raises(ValueError, match=r"the transformer draws 8 px pictures, not 16: set data\.size=8"):
        fit(wrong, tmp_path / "run", quiet=True)


def test_the_codes_are_those_of_the_pictures_with_their_captions(tmp_path, recipe):
    fit(recipe, tmp_path / "run", quiet=True)
    dvae = checkpoint.load(recipe["frozen"]["dvae"]).model
    pictures = loader.build({**DATA, "val_samples": 0, "require_captions": True})
    cached = loader.build({"type": "image-tokens", "path": str(tmp_path / "run" / "codes"), "size": 16})
    source = cached.sources[0]
    found = {}
    for block, count in enumerate(source.blocks):
        for index in range(count):
            sample = source.read(block, index)
            found[sample["key"]] = sample
    assert len(found) == 60
    for sample in (pictures.sources[0].read(0, index) for index in range(60)):
        image = torch.from_numpy(sample["image"].copy()).permute(2, 0, 1)[None] / 127.5 - 1
        assert found[sample["key"]]["text"] == sample["text"]
        with torch.no_grad():
            same = dvae.encode(image)[0].numpy() == found[sample["key"]]["image_tokens"]
        assert same.mean() > 0.9  # but for rounding of pixels


def test_of_a_mixture_every_picture_is_encoded_once_and_validation_stays_apart(tmp_path, recipe):
    few, many = ({"type": "scenes", "objects": "shapes", "samples": count, "seed": count} for count in (20, 90))
    data = {"type": "mixture", "sources": [few, many], "weights": [1, 1], "size": 16, "val_samples": 2}
    fit({**recipe, "data": data}, tmp_path / "run", quiet=True)
    assert sorted(path.name for path in (tmp_path / "run" / "codes").iterdir()) == ["0", "1", "about.json"]
    nodes = [{"type": "image-tokens", "path": str(tmp_path / "run" / "codes" / name)} for name in ("0", "1")]
    cached = loader.build({**data, "sources": nodes})
    assert [sum(source.blocks) for source in cached.sources] == [20, 90]
    held_out = {(batch["text"][0], batch["image_tokens"].sum().item()) for batch in cached.validation(1)}
    trained = {(batch["text"][0], batch["image_tokens"].sum().item()) for batch, _ in zip(cached.train(1), range(400))}
    assert len(held_out) == 2
    assert not held_out & trained
    limited = image_tokens._sources({**data, "samples": 30, "val_samples": 0}, tmp_path)
    assert [source.count for source in limited] == [15, 15]


def test_bad_samples_stop_the_encoding_as_they_do_training(tmp_path, recipe):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(200):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(pictures / f"{number:03d}.png")
        (pictures / f"{number:03d}.txt").write_text("red")
    for number in range(0, 200, 4):
        (pictures / f"{number:03d}.png").write_bytes(b"no picture")
    wrong = {**recipe, "data": {"type": "folder", "path": str(pictures), "size": 16, "val_samples": 10}}
    with pytest.raises(DataError, match=r"samples are bad, above data\.max_bad_fraction="):
        fit(wrong, tmp_path / "run", quiet=True)
    listed = [json.loads(line)["key"] for line in (tmp_path / "run" / "bad_samples.jsonl").open()]
    assert listed
    assert all(int(Path(key).stem) % 4 == 0 for key in listed)


def test_what_changes_no_code_may_change(tmp_path, recipe):
    run = tmp_path / "run"
    fit(recipe, run, quiet=True)
    files = {path: path.stat().st_mtime_ns for path in (run / "codes").glob("codes-*")}
    assert fit({**recipe, "data": {**recipe["data"], "num_workers": 1}}, run, quiet=True) == 0
    assert files == {path: path.stat().st_mtime_ns for path in (run / "codes").glob("codes-*")}


def test_the_time_for_a_run_counts_the_encoding(tmp_path, recipe, monkeypatch):
    whole = DVAE.encode

    def slow(self, image):
        time.sleep(0.2)
        return whole(self, image)

    with monkeypatch.context() as patch:
        patch.setattr(DVAE, "encode", slow)
        with pytest.raises(Failure, match="stopped while encoding") as stopped:
            fit(recipe, tmp_path / "run", max_time="1s", quiet=True)
    assert stopped.value.code == 75
    assert fit(recipe, tmp_path / "run", quiet=True) == 0


def test_codes_of_another_dvae_are_not_taken(tmp_path, recipe):
    run = tmp_path / "run"
    fit(recipe, run, quiet=True)
    other = checkpoint.read_tensors(tmp_path / "dvae.safetensors")
    other["encoder.blocks.input.b"] += 1
    recipe_of = checkpoint.metadata(tmp_path / "dvae.safetensors")["recipe"]
    checkpoint.save(tmp_path / "dvae.safetensors", other, recipe_of)
    with pytest.raises(Failure, match="holds image tokens of other data or of another dVAE"):
        fit(recipe, run, quiet=True, resume="force")
