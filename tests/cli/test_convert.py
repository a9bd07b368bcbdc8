import json

import numpy as np
import pytest
import torch

from dalle_cli import checkpoint, images
from dalle_cli.text.learn import learn
from tests.cli.conftest import one_line
from tests.convert.test_importing import CAPTIONS
from tests.convert.test_systems import diffusers, quick
from tests.fixtures.miniatures import noise


def test_float16_export_generates(dalle, tiny):
    ended = dalle("export", tiny.dalle, "--out", "small/dalle.safetensors")
    assert (ended.code, ended.err) == (0, "")
    assert ended.result == {"path": "small/dalle.safetensors", "precision": "fp16"}
    tensors = checkpoint.read_tensors(checkpoint.resolve("small/dalle.safetensors"))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    result = dalle("inspect", "small/dalle.safetensors", "--verify").result
    assert (result["checksum"], result["step"], result["recipe"]["model"]["type"]) == ("verified", 7, "dalle")
    assert result["tokenizer"]["vocab_size"] == 520
    assert dalle("sample", "zebra", "--recipe", "small/dalle.safetensors").code == 0
    assert dalle("export", tiny.dvae, "--out", "x", terminal=True).out == "x\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("CLIP", "--out", "there"), 73, "--out there already exists: use --overwrite"),
        (("CLIP", "--out", "new", "--precision", "int8"), 2, "choose one of float32, bf16, fp16"),
        (("gone", "--out", "new"), 3, "no checkpoint 'gone'"),
        (("there", "--out", "new"), 3, "there: not a safetensors file"),
    ],
)
def test_export_errors(dalle, tiny, tmp_path, words, code, message):
    (tmp_path / "there").write_text("mine")
    ended = dalle("export", *(tiny.clip if word == "CLIP" else word for word in words))
    assert (ended.code, ended.out, one_line(ended.err)) == (code, "", True), ended.err
    assert message in ended.err
    assert (tmp_path / "there").read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_export_overwrites(dalle, tiny, tmp_path):
    (tmp_path / "there").write_text("mine")
    assert dalle("export", tiny.clip, "--out", "there", "--overwrite", "--precision", "bf16").code == 0
    assert checkpoint.metadata(tmp_path / "there")["recipe"]["model"]["type"] == "clip"


def carried(dalle, tiny, kind, layout, out, back):
    """Export a tiny checkpoint, import what was written, and compare."""
    assert dalle("export", getattr(tiny, kind), "--format", layout, "--out", out, "--precision", "float32").code == 0
    ended = dalle("import", out, "--out", back)
    assert ended.code == 0, ended.err
    one, two = (checkpoint.read_tensors(checkpoint.resolve(name)) for name in (getattr(tiny, kind), back))
    assert one.keys() == two.keys()
    assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())
    return ended


@pytest.mark.parametrize("layout", ["hf-clip", "openai-clip", "open-clip"])
def test_imported_clip_ranks_the_same(dalle, tiny, tmp_path, layout):
    (tmp_path / "in").mkdir()
    for i in range(3):
        noise(i, 32, 32).save(tmp_path / "in" / f"{i}.png")
    ended = carried(dalle, tiny, "clip", layout, "clip", "checkpoints/mine")
    assert ended.err == ""
    assert (ended.result["layout"], ended.result["vocab_size"]) == (layout, 522)
    words = ("rerank", "in", "--prompt", "a red circle", "--precision", "float32", "--model")
    assert dalle(*words, "mine").results == dalle(*words, tiny.clip).results
    assert json.loads(dalle("show", "mine", "--json").out)["model"] == ended.result["model"]


def test_imported_dvae_reconstructs_the_same(dalle, tiny, tmp_path):
    noise(0, 16, 16).save(tmp_path / "x.png")
    carried(dalle, tiny, "dvae", "openai-dvae", "dvae.pt", "mine")
    words = ("reconstruct", "x.png", "--size", 16, "--overwrite", "--model")
    one, two = (dalle(*words, model).result for model in ("mine", tiny.dvae))
    assert (one["psnr"], one["unique_tokens"]) == (two["psnr"], two["unique_tokens"])


def test_import_on_a_terminal(dalle, tiny):
    dalle("export", tiny.dvae, "--format", "openai-dvae", "--out", "dvae.pt")
    out = dalle("import", "dvae.pt", "--out", "mine", terminal=True).out
    assert "openai-dvae" in out
    assert "dvae: dalle show mine" in out


def test_import_of_a_system(dalle, tmp_path):
    diffusers(tmp_path / "theirs")
    learn(CAPTIONS, 522, "clip").save(tmp_path / "words.json")
    words = ("import", "theirs", "--system", "--vocab", "words.json")
    ended = dalle(*words, "--out", "checkpoints/karlo")
    assert ended.code == 0, ended.err
    assert ended.result["parts"].keys() == {"prior", "decoder", "upsampler", "clip"}
    assert ended.result["recipes"] == ["checkpoints/karlo/system.yaml"]
    assert 'dalle sample "..." --recipe karlo' in dalle(*words, "--out", "karlo", terminal=True).out
    quick(tmp_path / "checkpoints" / "karlo" / "system.yaml")
    few = ("--recipe", "karlo", "--precision", "float32")
    one, two = (dalle("sample", "a red circle", *few, *more) for more in (("--out", "a"), ("--offload", "--out", "b")))
    assert (one.code, two.code) == (0, 0), two.err
    assert (tmp_path / one.result["path"]).read_bytes()[:4] == b"\x89PNG"
    outputs = [np.asarray(images.decode(str(tmp_path / ended.result["path"]))) for ended in (one, two)]
    assert (outputs[0] == outputs[1]).all()
    assert dalle("export", "karlo", "--format", "diffusers-unclip", "--out", "again").code == 0
    assert (tmp_path / "again" / "model_index.json").is_file()


class Bait:
    def __reduce__(self):
        return eval, ("open('hit', 'w')",)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("bait.pt", "--out", "new"), 3, "asks for __builtin__.eval"),
        (("unknown.pt", "--out", "new"), 3, "no known layout has these keys (a, b, ...)"),
        (("gone.pt", "--out", "new"), 3, "gone.pt: no such file or folder"),
        (("empty", "--out", "new"), 3, "no weights in this folder"),
        (("text.pt", "--out", "new"), 3, "text.pt: a damaged pickle, or not a pickle"),
        (("CLIP", "--out", "new"), 3, "a checkpoint of dalle"),
        (("unknown.pt", "--out", "there"), 73, "exists; add --overwrite"),
        (("unknown.pt", "--out", "new", "--precision", "int8"), 2, "choose one of float32, bf16, fp16"),
        (("unknown.pt",), 2, "Missing option '--out'"),
        (("unknown.pt", "--out", "new", "--system"), 3, "--system imports a folder, and this is a file"),
        (("unknown.pt", "--out", "new", "--system", "--activation", "gelu"), 2, "is an option of one CLIP"),
        (("hf:karlo", "--out", "new"), 2, "hf:karlo: write hf:owner/name"),
    ],
)
def test_import_errors(dalle, tiny, tmp_path, words, code, message):
    torch.save({"weight": torch.ones(1), "bait": Bait()}, tmp_path / "bait.pt")
    torch.save({"a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "unknown.pt")
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "empty").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / checkpoint.FILE).write_text("mine")
    ended = dalle("import", *(tiny.clip if word == "CLIP" else word for word in words))
    assert (ended.code, ended.out) == (code, "")
    assert message in ended.err
    assert one_line(ended.err) or code == 2
    assert (tmp_path / "there" / checkpoint.FILE).read_text() == "mine"
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "hit").exists()


def test_pipelines_need_a_system(dalle, tiny):
    ended = dalle("export", tiny.clip, "--format", "diffusers-unclip", "--out", "new")
    assert (ended.code, one_line(ended.err)) == (2, True)
    assert "diffusers-unclip takes a whole system, its folder or its recipe" in ended.err
