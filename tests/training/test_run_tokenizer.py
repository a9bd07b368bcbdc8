import json

import pytest

from dalle_cli import checkpoint
from dalle_cli.recipe import load
from dalle_cli.registry import RecipeError
from dalle_cli.text.loading import load as load_tokenizer
from dalle_cli.training import options, run_tokenizer
from dalle_cli.training.loop import fit
from tests.data.conftest import picture

SMALL = [
    "model.image.size=16", "model.embed_dim=8", "model.image.width=16", "model.image.depth=1", "model.text.width=16",
    "model.text.depth=1", "data.size=16", "data.num_workers=0", "train.steps=4", "train.batch_size=8",
    "train.precision=float32", "train.save_every=2", "model.text.vocab_size=560",
]  # fmt: skip


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.png").write_bytes(picture("red" if number % 2 else "blue"))
        (folder / f"{number:02d}.txt").write_text(f"a {'red' if number % 2 else 'blue'} square, number {number}")
    return folder


def clip(photos, *words):
    overrides = ["data.type=folder", f"data.path={photos}", *SMALL, *words]
    return options.check(load("tiny", "clip", overrides, checkpoint.accepted_arguments))


def test_missing_vocabulary_is_learned_once_and_kept(photos, tmp_path, capsys):
    run = tmp_path / "run"
    assert fit(clip(photos), run) == 0
    kept = load_tokenizer(run / "tokenizer.json")
    told = capsys.readouterr().err
    assert f"learned a vocabulary of {kept.vocab_size} entries from 40 captions, kept in {run}/tokenizer.json" in told
    assert checkpoint.load(str(run), "clip").tokenizer.merges == kept.merges
    assert fit(clip(photos), run) == 0  # the run is complete; nothing is learned again
    assert "learned" not in capsys.readouterr().err


def test_resumed_run_keeps_its_vocabulary_whatever_happens_to_the_data(photos, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(clip(photos), whole, quiet=True)
    fit(clip(photos, "train.steps=2"), parts, quiet=True)
    before = (parts / "tokenizer.json").read_bytes()
    # A file that appears at the recipe's path later is not what this run was trained with.
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    other = {"type": "clip", "merges": []}
    (tmp_path / "checkpoints" / "tokenizer-tiny.json").write_text(json.dumps(other))
    fit(clip(photos), parts, resume="force", quiet=True)
    assert (parts / "tokenizer.json").read_bytes() == before
    expected = checkpoint.read_tensors(whole / checkpoint.FILE)
    for name, value in checkpoint.read_tensors(parts / checkpoint.FILE).items():
        assert value.shape == expected[name].shape


def test_transformer_gets_the_size_of_what_was_learned(photos, tmp_path):
    node = {
        "tokenizer": {"type": "dalle", "path": "none.json"},
        "model": {"type": "dalle", "vocab_size": 2000},
        "data": {"type": "folder", "path": str(photos), "size": 16, "crop": "pad", "caption": "first"},
    }
    recipe, tokenizer = run_tokenizer.prepare(node, tmp_path / "run", lambda line: None)
    assert 256 < tokenizer.vocab_size < 2000
    assert recipe["model"]["vocab_size"] == tokenizer.vocab_size
    assert run_tokenizer.prepare(node, tmp_path / "run", lambda line: None)[0] == recipe


def test_vocabulary_of_the_frozen_clip_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    node = {
        "tokenizer": {"type": "dalle", "path": "none.json"},
        "model": {"type": "diffusion-prior", "embed_dim": 8},
        "frozen": {"clip": "starter/clip"},
        "data": {},
    }
    told = []
    _, tokenizer = run_tokenizer.prepare(node, tmp_path / "run", told.append)
    assert tokenizer.merges == checkpoint.load("starter/clip").tokenizer.merges
    assert "using the vocabulary of frozen.clip" in told[0]


def test_decoder_with_a_text_encoder_of_its_own_learns_a_vocabulary(photos, tmp_path):
    node = {
        "tokenizer": {"type": "dalle", "path": "none.json"},
        "model": {"type": "unet", "conditions": {"text": {"type": "text-condition", "vocab_size": 560}}},
        "frozen": {"clip": "starter/clip"},
        "data": {"type": "folder", "path": str(photos), "size": 16},
    }
    said = []
    _, tokenizer = run_tokenizer.prepare(node, tmp_path / "run", said.append)
    assert tokenizer.vocab_size <= 560
    assert "learned a vocabulary" in said[0]


def test_model_without_entries_for_the_bytes_is_refused():
    node = {"tokenizer": {"type": "clip"}, "model": {"type": "clip", "text": {"vocab_size": 100}}}
    with pytest.raises(RecipeError, match="smaller than the 514 bytes and special tokens"):
        run_tokenizer.learned_size(node)


@pytest.mark.parametrize(("path", "missing"), [("published", False), ("starter", False), ("none.json", True)])
def test_only_files_that_do_not_exist_are_learned(path, missing):
    assert run_tokenizer.is_missing({"tokenizer": {"type": "clip", "path": path}}) is missing


def test_batches_larger_than_the_data_end_a_run_before_it_starts(photos, tmp_path):
    with pytest.raises(RecipeError, match=r"train\.batch_size: 64 exceeds the 38 training samples"):
        fit(clip(photos, "train.batch_size=64"), tmp_path / "run", quiet=True)
