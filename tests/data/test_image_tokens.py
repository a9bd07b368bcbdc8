import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from dalle_cli.data import sources
from dalle_cli.data.source import BadSample, DataError


def write(path, count, texts=None, shape=(2, 2)):
    codes = np.arange(count * np.prod(shape), dtype=np.uint16).reshape(count, *shape)
    words = {
        "text": [f"caption {i}" for i in range(count)] if texts is None else texts,
        "key": [f"key-{i}" for i in range(count)],
    }
    packed = {name: np.frombuffer(json.dumps(values).encode(), dtype=np.uint8) for name, values in words.items()}
    save_file({"codes": codes, **packed}, path)


def source(folder):
    return sources.build({"type": "image-tokens", "path": str(folder)}, "data")


def test_a_sample_has_codes_in_place_of_a_picture(tmp_path):
    write(tmp_path / "codes-00000.safetensors", 3)
    write(tmp_path / "codes-00001.safetensors", 2)
    found = source(tmp_path)
    assert found.blocks == [3, 2]
    sample = found.read(1, 1)
    assert (sample["text"], sample["key"]) == ("caption 1", "key-1")
    assert sample["image_tokens"].tolist() == [[4, 5], [6, 7]]
    assert found.read(0, 0, with_image=False)["image_tokens"] is None


def test_a_missing_caption_is_a_bad_sample(tmp_path):
    write(tmp_path / "codes-00000.safetensors", 3, texts=["one"])
    found = source(tmp_path)
    assert found.read(0, 0)["text"] == "one"
    with pytest.raises(BadSample, match="fewer captions than images"):
        found.read(0, 2)


def test_files_that_hold_no_codes_are_named(tmp_path):
    path = tmp_path / "codes-00000.safetensors"
    write(path, 2, shape=(4,))
    with pytest.raises(DataError, match=r"not a file of image tokens: their shape is \[2, 4\]"):
        source(tmp_path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=f"{path}: not a file of image tokens"):
        source(tmp_path)
