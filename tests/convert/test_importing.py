"""Imports of miniature weights; pickles of classes that are not installed are made as their publisher did."""

import json
import sys
import types
from collections import OrderedDict

import pytest
import torch
from torch import nn

from dalle_cli import checkpoint
from dalle_cli.convert.importing import ImportOptions, import_weights
from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import export_state
from dalle_cli.exits import USAGE, WOULD_OVERWRITE, Failure
from dalle_cli.models import models
from dalle_cli.text import TextError
from dalle_cli.text.learn import learn

VIT = {"type": "vit", "size": 32, "patch_size": 16, "width": 64, "depth": 1, "heads": 1}
TEXT = {"type": "clip-text", "vocab_size": 522, "context_length": 12, "width": 64, "depth": 1, "heads": 1}
CLIP = {"type": "clip", "embed_dim": 8, "image": VIT, "text": TEXT}
DVAE = {"type": "dvae", "vocab_size": 32, "n_hid": 8, "n_init": 8, "groups": 3, "num_res_blocks": 1}
CAPTIONS = ["a red circle", "a blue square", "a green star on a pink background"] * 2


@pytest.fixture(autouse=True)
def no_vocabularies(monkeypatch, tmp_path):
    """No published vocabulary on this machine, and an empty folder to work in."""
    for name in ("DALLE_CLIP_VOCAB", "DALLE_GPT2_VOCAB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def vocab(tmp_path):
    learn(CAPTIONS, 522, "clip").save(tmp_path / "words.json")
    return str(tmp_path / "words.json")


def published(layout="openai-clip", node=CLIP):
    torch.manual_seed(0)
    state = export_state(layout, node, models.build(node).state_dict())
    return {key: tensor.half() if tensor.ndim > 1 else tensor for key, tensor in state.items()}


def bring(source, out="out", vocab=None, **options):
    """Import weights; returns what was written and the log lines."""
    lines = []
    return import_weights(str(source), out, ImportOptions(vocab, **options), lines.append), lines


def weights(out="out"):
    return checkpoint.read_tensors(checkpoint.resolve(out))


def equal(one, two):
    return one.keys() == two.keys() and all(
        torch.equal(one[key], two[key]) and one[key].dtype == two[key].dtype for key in one
    )


def test_clip_archive(tmp_path, vocab):
    extra = {key: torch.tensor(1) for key in ("input_resolution", "context_length", "vocab_size")}
    torch.save(published() | extra, "clip.pt")
    result, lines = bring("clip.pt", vocab=vocab)
    assert (result["layout"], result["model"], result["vocab_size"], lines) == ("openai-clip", CLIP, 522, [])
    assert "float16" in result["dtypes"]
    assert equal(export_state("openai-clip", CLIP, weights()), published())
    task = checkpoint.load("out", "clip")
    assert task.embed_texts(["a red circle"]).shape == (1, 8)
    assert checkpoint.metadata(checkpoint.resolve("out"))["source"] == "openai-clip"


class Module(nn.Module):
    """Holds tensors under dotted names, as TorchScript and pickles hold them."""

    def __init__(self, state):
        super().__init__()
        for key, tensor in state.items():
            head, _, rest = key.partition(".")
            if rest:
                inside = {k.removeprefix(f"{head}."): t for k, t in state.items() if k.startswith(f"{head}.")}
                if head not in self._modules:
                    self.add_module(head, Module(inside))
            elif tensor.is_floating_point():
                self.register_parameter(key, nn.Parameter(tensor, requires_grad=False))
            else:
                self.register_buffer(key, tensor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(vocab):
    torch.jit.script(Module(published() | {"input_resolution": torch.tensor(32)})).save("script.pt")
    assert bring("script.pt", vocab=vocab)[0]["model"] == CLIP
    assert equal(export_state("openai-clip", CLIP, weights()), published())


@pytest.mark.parametrize("old", [False, True])
def test_pickled_modules_of_the_dvae(tmp_path, monkeypatch, old):
    classes = types.ModuleType("dall_e.encoder")
    classes.Encoder = type("Encoder", (Module,), {"__module__": "dall_e.encoder"})
    monkeypatch.setitem(sys.modules, "dall_e", types.ModuleType("dall_e"))
    monkeypatch.setitem(sys.modules, "dall_e.encoder", classes)
    torch.manual_seed(0)
    state = models.build(DVAE).state_dict()
    for half in ("encoder", "decoder"):
        inside = {key.removeprefix(f"{half}."): value for key, value in state.items() if key.startswith(half)}
        module = classes.Encoder(inside)
        module.device, module.settings = torch.device("cpu"), OrderedDict(vocab_size=32)
        torch.save(module, f"{half}.pkl", _use_new_zipfile_serialization=not old)
    monkeypatch.delitem(sys.modules, "dall_e.encoder")
    monkeypatch.delitem(sys.modules, "dall_e")
    result, lines = bring(tmp_path)
    assert (result["layout"], result["model"], result["vocab_size"], lines) == ("openai-dvae", DVAE, None, [])
    assert equal(weights(), state)
    assert checkpoint.load("out", "dvae").model.encode(torch.zeros(1, 3, 16, 16)).shape == (1, 4, 4)


def test_folder_gives_heads_activation_and_vocabulary(tmp_path):
    node = CLIP | {"image": VIT | {"heads": 2, "activation": "gelu"}}
    source = all_layouts()["hf-clip"]
    (tmp_path / "in").mkdir()
    torch.save(published("hf-clip"), "in/pytorch_model.bin")
    (tmp_path / "in" / "config.json").write_text(json.dumps(source.config.write(node)))
    merges = learn(CAPTIONS, 522, "clip").merges
    (tmp_path / "in" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    result, lines = bring("in")
    assert (result["model"], lines) == (node, [])
    assert checkpoint.load("out").tokenizer.merges == merges


def test_assumptions_are_logged_and_overridden(vocab):
    torch.save(published("open-clip"), "clip.bin")
    result, lines = bring("clip.bin", vocab=vocab)
    assert result["model"] == CLIP
    assert len(lines) == 1
    assert "model.image.activation=quick-gelu" in lines[0]
    heads = ["model.image.heads=1", "model.text.heads=1"]
    result, lines = bring("clip.bin", "other", vocab, activation="gelu", overrides=heads)
    assert lines == []
    assert (result["model"]["image"]["activation"], result["model"]["text"]["activation"]) == ("gelu", "gelu")
    one, two = (checkpoint.load(name, "clip").embed_texts(["a red circle"]) for name in ("out", "other"))
    assert not torch.allclose(one, two)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision(vocab, precision, dtype):
    torch.save(published(), "clip.pt")
    result, _ = bring("clip.pt", vocab=vocab, precision=precision)
    assert result["dtypes"].keys() == {str(dtype).removeprefix("torch.")}
    assert {tensor.dtype for tensor in weights().values()} == {dtype}


def test_vocabulary_must_exist_and_fit(tmp_path, vocab):
    torch.save(published(), "clip.pt")
    (tmp_path / "inner").mkdir()
    (tmp_path / "clip.pt").rename(tmp_path / "inner" / "clip.pt")
    with pytest.raises(
        TextError, match=r"give --vocab FILE: .*bpe_simple_vocab_16e6.txt.gz from github.com/openai/CLIP"
    ):
        bring("inner/clip.pt")
    learn(CAPTIONS, 518, "clip").save(tmp_path / "short.json")
    with pytest.raises(Failure, match="a vocabulary of 518 entries, where the model has 522"):
        bring("inner/clip.pt", vocab="short.json")
    with pytest.raises(TextError, match="gone"):
        bring("inner/clip.pt", vocab="gone")
    assert not (tmp_path / "out").exists()


def test_published_files_are_recognized_by_checksum(vocab, monkeypatch):
    torch.save(published(), "ViT-B-32.pt")
    result, lines = bring("ViT-B-32.pt", vocab=vocab)
    assert result["published"] is None
    assert any("its checksum is not that of the published ViT-B-32.pt" in line for line in lines)
    monkeypatch.setattr("dalle_cli.convert.files.opening.Weights.published_name", lambda self: "ViT-B-32.pt")
    result, lines = bring("ViT-B-32.pt", vocab=vocab, overwrite=True)
    assert (result["published"], lines) == ("ViT-B-32.pt", [])


UNET = {
    **{
        "type": "unet",
        "base_channels": 64,
        "channel_mult": [1, 2],
        "num_res_blocks": 1,
        "attention_factors": [2],
        "conditions": {},
    },
    **{"head_dim": 64, "heads": None, "attention_order": "legacy", "middle_attention": True},
    **{"scale_shift": True, "resample": "resblock", "learned_variance": True},
}
LOW_RES = {"low_res": {"type": "low-res-condition", "factor": 4, "resize": "bilinear"}}


def test_unpublished_sizes_have_no_task():
    torch.save(published("openai-adm", UNET), "unet.pt")
    assert bring("unet.pt")[0]["model"] == UNET
    assert "task" not in checkpoint.metadata(checkpoint.resolve("out"))["recipe"]
    assert equal(export_state("openai-adm", UNET, weights()), published("openai-adm", UNET))


@pytest.mark.parametrize(
    ("layout", "node", "task"),
    [
        ("openai-adm", UNET | {"channel_mult": [1, 1, 2, 2]}, {"type": "decoder", "size": 64, "schedule": "cosine"}),
        ("openai-adm", UNET | {"conditions": LOW_RES}, {"type": "decoder", "size": 512, "schedule": "linear"}),
        (
            "openai-adm-classifier",
            {**{"type": "classifier", "size": 32, "classes": 9, "base_channels": 64, "channel_mult": [1, 2]},
             **{"num_res_blocks": 1, "attention_factors": [2], "head_dim": 64, "attention_order": "legacy"}},
            {"type": "classifier", "schedule": "linear"},
        ),
    ],
)  # fmt: skip
def test_published_sizes_get_their_task(layout, node, task):
    torch.save(published(layout, node), "unet.pt")
    bring("unet.pt")
    assert checkpoint.metadata(checkpoint.resolve("out"))["recipe"]["task"] == task
    assert len(checkpoint.load("out", node["type"]).process.alpha_bar) == 1000


@pytest.mark.parametrize("conditions", [{}, LOW_RES], ids=["base", "upsampler"])
def test_glide_gets_its_tokenizer_and_task(conditions, tmp_path):
    words = learn(CAPTIONS, 300, "glide")
    words.save(tmp_path / "gpt.json")
    entries = {"vocab_size": words.vocab_size, "context_length": 6, "width": 64, "depth": 1, "heads": 1}
    node = UNET | {"conditions": {"text": {"type": "text-condition", **entries}, **conditions}}
    torch.save(published("openai-glide", node), "base.pt")
    result, _ = bring("base.pt", vocab="gpt.json")
    assert (result["layout"], result["vocab_size"]) == ("openai-glide", words.vocab_size)
    task = checkpoint.load("out", "unet")
    assert task.size == (256 if conditions else 64)
    assert task.tokenizer.merges == words.merges


class Bait:
    def __reduce__(self):
        return eval, ("open('hit', 'w')",)


def test_errors_write_nothing(tmp_path, vocab):
    torch.save({"state_dict": published(), "bait": Bait()}, "bait.pt")
    torch.save(published() | {"stray": torch.ones(1)}, "stray.pt")
    torch.save({"a": torch.ones(1)}, "unknown.pt")
    (tmp_path / "there.safetensors").write_text("mine")
    for words, error, message in (
        ({"source": "bait.pt"}, ConvertError, "asks for .*eval"),
        ({"source": "stray.pt"}, ConvertError, "1 unknown: stray"),
        ({"source": "unknown.pt"}, ConvertError, "no known layout"),
        ({"source": "gone.pt"}, Failure, "no such file"),
        ({"source": "stray.pt", "precision": "int8"}, Failure, "choose one of float32"),
        ({"source": "stray.pt", "activation": "relu"}, Failure, "choose one of quick-gelu"),
        ({"source": "stray.pt", "out": "there.safetensors"}, Failure, "exists; add --overwrite"),
    ):
        with pytest.raises(error, match=message) as caught:
            bring(**{"vocab": vocab} | words)
        if error is Failure and words["source"] == "stray.pt":
            assert caught.value.code == (WOULD_OVERWRITE if "out" in words else USAGE)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "hit").exists()
    assert (tmp_path / "there.safetensors").read_text() == "mine"
