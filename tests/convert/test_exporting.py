import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dalle_cli import checkpoint
from dalle_cli.checkpoint import CheckpointError
from dalle_cli.convert.exporting import export, export_checkpoint
from dalle_cli.convert.files import archives
from dalle_cli.convert.importing import ImportOptions, import_weights
from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.recognition import export_state
from dalle_cli.exits import USAGE, WOULD_OVERWRITE, Failure
from dalle_cli.models import models
from dalle_cli.text.learn import learn
from tests.convert.miniatures import PRIOR
from tests.convert.test_importing import CAPTIONS, CLIP, VIT, bring, equal, published
from tests.parity.peers import Missing
from tests.parity.peers import peer as find

FORMATS = {"openai-clip": "open_clip_config.json", "open-clip": "open_clip_config.json", "hf-clip": "config.json"}


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """Runs in an empty folder with the checkpoint `clip`, whose weights are of several types."""
    monkeypatch.chdir(tmp_path)
    learn(CAPTIONS, 522, "clip").save("words.json")
    torch.save(published(), "clip.pt")
    bring("clip.pt", "clip", "words.json")
    return "clip"


@pytest.mark.parametrize("layout", FORMATS)
def test_folders_are_imported_back(clip, layout):
    files = export(clip, layout, "folder", None, False)
    assert files[-1] == f"folder/{FORMATS[layout]}"
    result, lines = bring("folder")
    assert (result["layout"], result["model"], lines) == (layout, CLIP, [])
    assert equal(checkpoint.read_tensors(checkpoint.resolve("out")), checkpoint.read_tensors(checkpoint.resolve(clip)))
    assert checkpoint.load("out").tokenizer.merges == checkpoint.load(clip).tokenizer.merges


@pytest.mark.parametrize("name", ["out.pt", "out.bin", "out.safetensors"])
def test_files_hold_the_published_tensors(clip, name):
    assert export(clip, "openai-clip", name, None, False) == [name]
    read = archives.read if not name.endswith(".safetensors") else load_file
    assert equal(read(Path(name)), published())
    if not name.endswith(".safetensors"):
        assert equal(torch.load(name, weights_only=True), published())


def test_precision(clip):
    export(clip, "hf-clip", "folder", "float32", False)
    assert {tensor.dtype for tensor in load_file("folder/model.safetensors").values()} == {torch.float32}


def test_round_trip_of_checkpoints(tiny, tmp_path):
    export(tiny.dvae, "openai-dvae", str(tmp_path / "dvae.safetensors"), None, False)
    import_weights(str(tmp_path / "dvae.safetensors"), str(tmp_path / "back"), ImportOptions(), print)
    back = checkpoint.read_tensors(tmp_path / "back" / checkpoint.FILE)
    assert equal(back, checkpoint.read_tensors(checkpoint.resolve(tiny.dvae)))


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("clip", "hf-clp", "new"), Failure, r"no such layout \(did you mean 'hf-clip'\?\)"),
        (("clip", "hf-clip", "new", "int8"), Failure, "choose one of float32"),
        (("clip", "openai-dvae", "new"), Failure, "name a file ending in"),
        (("clip", "openai-dvae", "new.pt"), ConvertError, "holds a model of type 'dvae', not 'clip'"),
        (("clip", "hf-clip", "there"), Failure, "there exists; add --overwrite"),
        (("gone", "hf-clip", "new"), checkpoint.CheckpointError, "no checkpoint 'gone'"),
    ],
)
def test_errors_write_nothing(clip, tmp_path, words, error, message):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(error, match=message) as caught:
        export(*words, *[None] * (4 - len(words)), False)
    if error is Failure:
        assert caught.value.code == (WOULD_OVERWRITE if "there" in words else USAGE)
    assert (tmp_path / "there").read_text() == "mine"
    assert not list(tmp_path.glob("new*"))


def test_overwriting_keeps_other_files(clip, tmp_path):
    export(clip, "hf-clip", "folder", None, False)
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    (tmp_path / "folder" / "config.json").write_text("{}")
    export(clip, "hf-clip", "folder", None, True)
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["model_type"] == "clip"
    assert (tmp_path / "folder" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("activation", ["quick-gelu", "gelu"])
@pytest.mark.parametrize(
    ("layout", "library"), [("hf-clip", "transformers"), ("openai-clip", "open_clip"), ("open-clip", "open_clip")]
)
def test_libraries_compute_the_same(clip, layout, library, activation):
    """Runs where the packages of `make parity` are installed."""
    try:
        peer = find(library)
    except Missing as reason:
        pytest.skip(str(reason))
    torch.save(published(node=CLIP | {"image": VIT | {"depth": 2}}), "deep.pt")
    bring("deep.pt", "deep", "words.json", activation=activation)
    export("deep", layout, "folder", None, False)
    task = checkpoint.load("deep", "clip")
    image = 2 * torch.rand(3, 3, 32, 32) - 1
    ids = torch.from_numpy(task.tokenizer.pack(CAPTIONS[:3], 12)[0])
    normalized = (image - task.model.mean) / task.model.std
    with torch.no_grad():
        if library == "transformers":
            network = peer.CLIPModel.from_pretrained("folder").float().eval()
            output = network(pixel_values=normalized, input_ids=ids)
            theirs = output.image_embeds, output.text_embeds
            words = peer.CLIPTokenizer.from_pretrained("folder")(CAPTIONS[0])["input_ids"]
            assert words == ids[0, : len(words)].tolist()
        else:
            network = peer.create_model("local-dir:folder").float().eval()
            theirs = network(normalized, ids)[:2]
        for one, other in zip(task.model(image, ids), theirs):
            assert (one - other).abs().max() / other.abs().max() < 1e-4


def test_karlo_files_are_wrapped_as_published(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = export_state("karlo-prior", PRIOR, models.build(PRIOR).state_dict())
    stats = state.pop("clip_mean"), state.pop("clip_std")
    (tmp_path / "theirs").mkdir()
    torch.save({"state_dict": state}, "theirs/prior.ckpt")
    torch.save(stats, "theirs/ViT-L-14_stats.th")
    learn(CAPTIONS, 522, "clip").save("words.json")
    bring("theirs", "prior", "words.json")
    files = export("prior", "karlo-prior", "ours/prior.ckpt", None, False)
    assert files == ["ours/prior.ckpt", "ours/ViT-L-14_stats.th"]
    assert equal(torch.load(files[0], weights_only=True)["state_dict"], state)
    assert all(map(torch.equal, torch.load(files[1], weights_only=True), stats))
    (tmp_path / "ours" / "prior.ckpt").unlink()
    with pytest.raises(Failure, match=r"ViT-L-14_stats.th exists; add --overwrite"):
        export("prior", "karlo-prior", "ours/prior.ckpt", None, False)
    assert export("prior", "diffusers-prior", "out", None, False)[0] == "out/diffusion_pytorch_model.safetensors"
    assert export("prior", "karlo-prior", "joined.safetensors", None, False) == ["joined.safetensors"]
    assert bring("joined.safetensors", "again", "words.json")[0]["layout"] == "karlo-prior"


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("float32", torch.float32)]
)
def test_export_in_another_precision(tiny, tmp_path, precision, dtype):
    out = tmp_path / "new" / "clip.safetensors"
    export_checkpoint(tiny.clip, out, precision, False)
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


def test_float16_embeddings_stay_close(tiny, tmp_path):
    export_checkpoint(tiny.clip, tmp_path / "clip.safetensors", "fp16", False)
    one, two = (checkpoint.load(str(path), "clip") for path in (tiny.clip, tmp_path / "clip.safetensors"))
    assert {parameter.dtype for parameter in two.parameters()} == {torch.float32}
    texts = ["a red circle", "zebra"]
    features, again = one.embed_texts(texts), two.embed_texts(texts)
    assert (features * again).sum(dim=-1).min() > 0.999
    assert not torch.equal(features, again)
    assert (again[0] @ again[1]) < 0.999


def test_runs_are_exported_by_name(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints" / "mine").mkdir(parents=True)
    shutil.copy(tiny.dvae, tmp_path / "checkpoints" / "mine" / checkpoint.FILE)
    export_checkpoint("mine", tmp_path / "mine.safetensors", "fp16", False)
    assert checkpoint.load("mine.safetensors", "dvae").model.vocab_size == 32


def test_errors_come_before_reading(tmp_path):
    out = tmp_path / "there.safetensors"
    out.write_text("mine")
    for precision, code in (("fp8", USAGE), ("fp16", WOULD_OVERWRITE)):
        with pytest.raises(Failure) as failure:
            export_checkpoint("none", out, precision, False)
        assert failure.value.code == code
    assert out.read_text() == "mine"
    with pytest.raises(CheckpointError, match="no checkpoint 'none'"):
        export_checkpoint("none", out, "fp16", True)
    assert out.read_text() == "mine"


def test_export_onto_itself(tiny, tmp_path):
    path = tmp_path / "dvae.safetensors"
    shutil.copy(tiny.dvae, path)
    export_checkpoint(str(path), path, "fp16", True)
    assert checkpoint.load(str(path), "dvae").model.vocab_size == 32
    assert {tensor.dtype for tensor in checkpoint.read_tensors(path).values()} == {torch.float16}
