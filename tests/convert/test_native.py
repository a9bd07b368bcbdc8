import shutil

import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.checkpoint import CheckpointError
from dalle_cli.convert.native import export
from dalle_cli.exits import USAGE, WOULD_OVERWRITE, Failure


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float16", torch.float16), ("bf16", torch.bfloat16), ("float32", torch.float32)]
)
def test_an_export_is_the_same_checkpoint_in_another_type(tiny, tmp_path, precision, dtype):
    out = tmp_path / "new" / "clip.safetensors"
    export(tiny.clip, out, precision, False)
    tensors = checkpoint.read_tensors(out)
    original = checkpoint.read_tensors(checkpoint.resolve(tiny.clip))
    assert tensors.keys() == original.keys()
    for key, tensor in original.items():
        assert torch.equal(tensors[key], tensor.to(dtype)), key
    one, two = (checkpoint.metadata(checkpoint.resolve(str(path))) for path in (tiny.clip, out))
    assert two["crc32"] == one["crc32"] or dtype != torch.float32
    for key in ("recipe", "tokenizer", "step", "samples"):
        assert two[key] == one[key]
    assert (two["step"], two["samples"], len(two["tokenizer"]["merges"])) == (7, 70, len(tiny.words))
    if dtype != torch.float32:
        assert out.stat().st_size < checkpoint.resolve(tiny.clip).stat().st_size


def test_what_was_exported_does_what_the_original_does(tiny, tmp_path):
    export(tiny.clip, tmp_path / "clip.safetensors", "float16", False)
    one, two = (checkpoint.load(str(path), "clip") for path in (tiny.clip, tmp_path / "clip.safetensors"))
    assert {parameter.dtype for parameter in two.parameters()} == {torch.float32}
    texts = ["a red circle", "zebra"]
    features, again = one.embed_texts(texts), two.embed_texts(texts)
    assert (features * again).sum(dim=-1).min() > 0.999
    assert not torch.equal(features, again)
    assert (again[0] @ again[1]) < 0.999


def test_a_run_is_exported_by_its_name(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints" / "mine").mkdir(parents=True)
    shutil.copy(tiny.dvae, tmp_path / "checkpoints" / "mine" / checkpoint.FILE)
    export("mine", tmp_path / "mine.safetensors", "float16", False)
    assert checkpoint.load("mine.safetensors", "dvae").model.vocab_size == 32


def test_it_is_refused_before_anything_is_read(tmp_path):
    out = tmp_path / "there.safetensors"
    out.write_text("mine")
    for precision, code in (("fp8", USAGE), ("float16", WOULD_OVERWRITE)):
        with pytest.raises(Failure) as failure:
            export("none", out, precision, False)
        assert failure.value.code == code
    assert out.read_text() == "mine"
    with pytest.raises(CheckpointError, match="no checkpoint 'none'"):
        export("none", out, "float16", True)
    assert out.read_text() == "mine"


def test_overwriting_oneself_is_safe(tiny, tmp_path):
    path = tmp_path / "dvae.safetensors"
    shutil.copy(tiny.dvae, path)
    export(str(path), path, "float16", True)
    assert checkpoint.load(str(path), "dvae").model.vocab_size == 32
    assert {tensor.dtype for tensor in checkpoint.read_tensors(path).values()} == {torch.float16}
