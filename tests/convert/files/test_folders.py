import json

import pytest

from dalle_cli.convert.files import folders
from dalle_cli.convert.layout import ConvertError
from dalle_cli.exits import Failure


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "config.json"], ["model.safetensors"]),
        (["pytorch_model.bin", "model.safetensors.index.json"], ["model.safetensors.index.json"]),
        (["model.fp16.safetensors", "vocab.json"], ["model.fp16.safetensors"]),
        (["diffusion_pytorch_model.fp16.bin", "diffusion_pytorch_model.bin"], ["diffusion_pytorch_model.bin"]),
        (["a.pt", "b.ckpt", "x_stats.th"], ["a.pt", "b.ckpt"]),
        (["w-00001-of-00002.bin", "w-00002-of-00002.bin", "w.bin.index.json"], ["w.bin.index.json"]),
        (["README.md"], []),
    ],
)
def test_weight_files(names, chosen):
    assert folders.weight_files(reversed(names), ["*_stats.th"]) == chosen


def test_shards_need_their_index():
    with pytest.raises(
        Failure, match=r"model-00001-of-00003.bin: one of 3 shards, but their index model.bin.index.json is missing"
    ):
        folders.weight_files(["model-00001-of-00003.bin"])


def test_missing_shards_are_named(tmp_path):
    index = tmp_path / "model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.bin", "b": "two.bin", "c": "one.bin"}}))
    (tmp_path / "one.bin").touch()
    with pytest.raises(Failure, match=r"1 of 2 shards are missing: two.bin"):
        folders.shards(index)
    files, keys = folders.shards(index, must_exist=False)
    assert ([file.name for file in files], keys) == (["one.bin", "two.bin"], {"a", "b", "c"})


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"weight_map": {}}', '{"weight_map": {"a": "../x"}}', '{"weight_map": [1]}']
)
def test_malformed_indices_are_refused(tmp_path, content):
    (tmp_path / "x.index.json").write_text(content)
    with pytest.raises(ConvertError, match="not an index of shards"):
        folders.shards(tmp_path / "x.index.json")
