import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from dalle_cli.data import loader
from dalle_cli.data.embeddings import Embeddings
from dalle_cli.data.source import BadSample, DataError


def write(path, start, count, width=8, images=False, texts=None):
    numbers = np.arange(start, start + count)
    tensors = {"image": np.repeat(numbers[:, None], width, axis=1).astype(np.float16)}
    tensors["caption"] = tensors["image"] + 1
    if images:
        tensors["pictures"] = np.broadcast_to(numbers[:, None, None, None], (count, 6, 6, 3)).astype(np.uint8)
    words = [f"a picture of {number}" for number in numbers] if texts is None else texts
    for name, values in (("text", words), ("key", [str(number) for number in numbers])):
        tensors[name] = np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)


@pytest.fixture(params=[False, True], ids=["alone", "with pictures"])
def folder(request, tmp_path):
    write(tmp_path / "embeddings-00000.safetensors", 0, 30, images=request.param)
    write(tmp_path / "embeddings-00001.safetensors", 30, 20, images=request.param)
    return tmp_path, request.param


def test_batches_hold_each_embedding_with_its_caption_and_key(folder):
    path, pictures = folder
    data = loader.build({"type": "embeddings", "path": str(path), "size": 6, "val_samples": 10, "num_workers": 0})
    assert (data.samples, data.held_out) == (40, 10)
    seen = []
    batches = data.train(20)
    for batch in (next(batches), next(batches), *data.validation(10)):
        assert ("image" in batch) == pictures
        for row, text, key in zip(batch["embedding"], batch["text"], batch["key"]):
            assert (row == int(key)).all()
            assert text == f"a picture of {key}"
        if pictures:
            values = (batch["image"][:, 0, 0, 0] + 1) * 127.5
            assert values.round().int().tolist() == [int(key) for key in batch["key"]]
        seen += batch["key"]
    assert sorted(map(int, seen)) == list(range(50))


def test_pictures_can_be_left_out(folder):
    path, _ = folder
    assert Embeddings(str(path), images=False).read(0, 3)["image"] is None
    assert Embeddings(str(path)).read(0, 3, with_image=False)["image"] is None


def test_files_of_another_kind_are_named(tmp_path):
    save_file({"codes": np.zeros((3, 2, 2), np.uint16)}, tmp_path / "codes-00000.safetensors")
    with pytest.raises(DataError, match=r"codes-00000\.safetensors: not a file of embeddings"):
        Embeddings(str(tmp_path))
    (tmp_path / "codes-00000.safetensors").write_bytes(b"cut short")
    with pytest.raises(DataError, match="not a file of embeddings"):
        Embeddings(str(tmp_path))


def test_embeddings_of_two_clips_are_not_mixed(tmp_path):
    write(tmp_path / "a.safetensors", 0, 3)
    write(tmp_path / "b.safetensors", 3, 3, width=4)
    with pytest.raises(DataError, match="several widths"):
        Embeddings(str(tmp_path))


def test_a_sample_without_a_caption_is_bad_and_a_file_without_captions_damaged(tmp_path):
    write(tmp_path / "a.safetensors", 0, 3, texts=["one", "two"])
    with pytest.raises(BadSample, match="fewer captions"):
        Embeddings(str(tmp_path)).read(0, 2)
    save_file({"image": np.zeros((3, 8), np.float16)}, tmp_path / "b.safetensors")
    with pytest.raises(DataError, match=r"b\.safetensors: damaged"):
        Embeddings(str(tmp_path)).read(1, 0)
