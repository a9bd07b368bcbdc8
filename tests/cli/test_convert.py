import pytest
import torch

from dalle_cli import checkpoint
from tests.cli.conftest import one_line


def test_a_checkpoint_is_written_in_float16_and_draws(dalle, tiny):
    ended = dalle("export", tiny.dalle, "--out", "small/dalle.safetensors")
    assert (ended.code, ended.err) == (0, "")
    assert ended.result == {"path": "small/dalle.safetensors", "precision": "float16"}
    tensors = checkpoint.read_tensors(checkpoint.resolve("small/dalle.safetensors"))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    found = dalle("inspect", "small/dalle.safetensors", "--verify").result
    assert (found["checksum"], found["step"], found["recipe"]["model"]["type"]) == ("verified", 7, "dalle")
    assert found["tokenizer"]["entries"] == 520
    assert dalle("sample", "zebra", "--recipe", "small/dalle.safetensors").code == 0
    assert dalle("export", tiny.dvae, "--out", "x", terminal=True).out == "x\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("CLIP", "--out", "there"), 73, "--out there is there already: give --overwrite"),
        (("CLIP", "--out", "new", "--precision", "int8"), 2, "choose float16, bf16, float32"),
        (("gone", "--out", "new"), 3, "no checkpoint 'gone'"),
        (("there", "--out", "new"), 3, "there: not a safetensors file"),
    ],
)
def test_mistakes_get_a_line_and_their_code(dalle, tiny, tmp_path, words, code, said):
    (tmp_path / "there").write_text("mine")
    ended = dalle("export", *(tiny.clip if word == "CLIP" else word for word in words))
    assert (ended.code, ended.out, one_line(ended.err)) == (code, "", True), ended.err
    assert said in ended.err
    assert (tmp_path / "there").read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_an_existing_file_is_replaced_when_told(dalle, tiny, tmp_path):
    (tmp_path / "there").write_text("mine")
    assert dalle("export", tiny.clip, "--out", "there", "--overwrite", "--precision", "bf16").code == 0
    assert checkpoint.metadata(tmp_path / "there")["recipe"]["model"]["type"] == "clip"
