import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from dalle_cli import checkpoint
from dalle_cli.data import loader
from dalle_cli.exits import Failure
from dalle_cli.generate import embed as module
from dalle_cli.generate.embed import embed
from dalle_cli.models import embedding
from tests.fixtures.miniatures import packs
from tests.tasks.priors import CLIP, words

DATA = {"type": "scenes", "objects": "shapes", "size": 8, "samples": 60, "num_workers": 0}
RECIPE = {"model": CLIP, "task": {"type": "clip"}}


@pytest.fixture
def clip(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FILE_SAMPLES", 25)
    monkeypatch.setattr(module, "BATCH", 10)
    torch.manual_seed(0)
    tokenizer = words()
    model = checkpoint.compose(RECIPE, tokenizer).model
    checkpoint.save(tmp_path / "clip.safetensors", model.state_dict(), RECIPE, tokenizer)
    return str(tmp_path / "clip.safetensors")


def test_embeddings_train_as_the_images_would(tmp_path, clip):
    seen = []
    summary = embed(
        tmp_path / "out", DATA, clip, store_images=True, precision="float32", on_progress=lambda *at: seen.append(at)
    )
    assert (summary["num_samples"], summary["embed_dim"], summary["files_written"]) == (60, 8, 3)
    assert seen[-1] == ("embedding", 60, 60)
    task = checkpoint.load(clip)
    node = {"type": "embeddings", "path": str(tmp_path / "out"), "size": 8, "val_samples": 0, "num_workers": 0}
    data = loader.build(node)
    batch = next(data.train(60))
    assert len(set(batch["key"])) == 60
    with torch.no_grad():
        torch.testing.assert_close(
            embedding.embed_images(task.model, batch["image"]), batch["embedding"], rtol=2e-3, atol=2e-3
        )
        stored = load_file(tmp_path / "out" / "embeddings-00002.safetensors")
        captions = embedding.read_texts(
            task.model, embedding.tokenize(task.model, task.tokenizer, json.loads(stored["text"].tobytes()))
        )
    np.testing.assert_allclose(stored["caption"], captions[0].numpy(), rtol=2e-3, atol=2e-3)
    assert stored["image"].shape == (10, 8)


@packs
def test_prepacked_weights_give_the_same_embeddings(tmp_path, clip, used):
    embed(tmp_path / "out", DATA, clip, precision="float32")
    assert used
    expected = tmp_path / "plain"
    used.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dalle_cli.nn.prepacked.MEMORY_FRACTION", 0)
        embed(expected, DATA, clip, precision="float32")
    assert not used
    for file in expected.glob("*.safetensors"):
        for name in ("image", "caption"):
            ours, plain = (load_file(folder / file.name)[name] for folder in (tmp_path / "out", expected))
            np.testing.assert_allclose(ours, plain, rtol=2e-3, atol=2e-3)


def test_existing_files_are_resumed_and_other_options_refused(tmp_path, clip):
    out = tmp_path / "out"
    embed(out, DATA, clip, num_samples=45)
    files = sorted(out.glob("embeddings-*"))
    assert len(files) == 2
    first = files[0].stat().st_mtime_ns
    content = files[1].read_bytes()
    files[1].unlink()
    (out / ".embeddings-00001.safetensors.1.tmp").write_bytes(b"of a killed process")
    assert embed(out, DATA, clip, num_samples=45)["files_written"] == 1
    assert files[0].stat().st_mtime_ns == first
    assert files[1].read_bytes() == content
    assert not list(out.glob(".*"))
    for change in ({"seed": 1}, {"store_images": True}, {"num_samples": 30}):
        with pytest.raises(Failure, match="name another folder") as refused:
            embed(out, DATA, clip, **{"num_samples": 45, **change})
        assert refused.value.code == 73


def test_processes_divide_the_files(tmp_path, clip, monkeypatch):
    embed(tmp_path / "whole", DATA, clip)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        embed(tmp_path / "divided", DATA, clip)
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "divided" / file.name).read_bytes() == file.read_bytes()


def test_folders_of_other_files_are_refused(tmp_path, clip):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    with pytest.raises(Failure, match="holds other files"):
        embed(tmp_path / "photos", DATA, clip)
    with pytest.raises(Failure, match="is a file"):
        embed(Path(clip), DATA, clip)
