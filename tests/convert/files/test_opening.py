import json

import pytest
import torch
from safetensors.torch import save_file

from dalle_cli import checkpoint
from dalle_cli.convert.files import opening
from dalle_cli.convert.files.opening import open_weights
from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import recognize
from dalle_cli.exits import Failure
from tests.convert.miniatures import PRIOR
from tests.convert.test_importing import CLIP, DVAE, equal, published

STATE = {"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.float16)}


@pytest.fixture(scope="module")
def clip():
    """Published weights of a CLIP."""
    return published("hf-clip", CLIP)


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
def test_content_decides_and_not_the_name(tmp_path, clip, name):
    for write in (save_file, torch.save):
        write(clip, tmp_path / name)
        assert equal(opening.read_file(tmp_path / name), clip)
        assert equal(open_weights(tmp_path).load(), clip)


def test_weights_are_opened_without_their_numbers(tmp_path, clip):
    torch.save({f"module.{key}": tensor for key, tensor in clip.items()}, tmp_path / "clip.pt")
    weights = open_weights(tmp_path / "clip.pt")
    assert (weights.layout.name, weights.path, weights.config) == ("hf-clip", tmp_path / "clip.pt", None)
    assert {key: tensor.shape for key, tensor in weights.state.items()} == {key: t.shape for key, t in clip.items()}
    assert all(tensor.is_meta for tensor in weights.state.values())
    assert equal(weights.load(), clip)


def test_a_source_is_recognized_once(tmp_path, clip, monkeypatch):
    calls = []
    monkeypatch.setattr(opening, "recognize", lambda state: calls.append(len(state)) or recognize(state))
    save_file(clip, tmp_path / "clip.safetensors")
    open_weights(tmp_path).load()
    assert calls == [len(clip)]


def test_a_file_that_changes_is_refused(tmp_path, clip):
    save_file(clip, tmp_path / "clip.safetensors")
    weights = open_weights(tmp_path)
    save_file(STATE, tmp_path / "clip.safetensors")
    with pytest.raises(ConvertError, match="was changed while it was read"):
        weights.load()


def test_the_same_weights_twice_are_read_once(tmp_path, clip):
    torch.save(clip, tmp_path / "pytorch_model.bin")
    torch.save(clip, tmp_path / "other.bin")
    save_file(clip, tmp_path / "model.safetensors")
    assert list(open_weights(tmp_path).files) == [tmp_path / "model.safetensors"]


def test_a_model_in_two_files_is_joined(tmp_path):
    state = published("openai-dvae", DVAE)
    halves = {
        half: {key.removeprefix(f"{half}."): tensor for key, tensor in state.items() if key.startswith(half)}
        for half in ("encoder", "decoder")
    }
    torch.save(halves["encoder"], tmp_path / "encoder.pkl")
    with pytest.raises(ConvertError, match=r"a part of openai-dvae; put encoder.pkl and decoder.pkl into one"):
        open_weights(tmp_path / "encoder.pkl")
    torch.save(halves["decoder"], tmp_path / "decoder.pkl")
    (tmp_path / "README.md").write_text("more")
    for source in (tmp_path, tmp_path / "encoder.pkl", tmp_path / "decoder.pkl"):
        weights = open_weights(source)
        assert equal(weights.load(), state)
        assert [file.name for file in weights.files] == ["encoder.pkl", "decoder.pkl"]


@pytest.mark.parametrize(
    ("names", "message"),
    [((), "no weights in this folder"), (("a.pt", "b.ckpt"), "several files of weights; name one of a.pt, b.ckpt")],
)
def test_ambiguous_folders_are_refused(tmp_path, names, message):
    for name in names:
        torch.save(STATE, tmp_path / name)
    with pytest.raises(Failure, match=message):
        open_weights(tmp_path)
    with pytest.raises(Failure, match="no such file or folder"):
        open_weights(tmp_path / "gone")


def test_our_checkpoints_and_torn_files_are_refused(tmp_path, tiny):
    with pytest.raises(ConvertError, match="already a checkpoint of dalle"):
        opening.read_file(checkpoint.resolve(tiny.clip))
    save_file(STATE, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-3])
    with pytest.raises(checkpoint.CheckpointError, match="cut short"):
        opening.read_file(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "old.pt"])
def test_meta_tensors_have_shapes_and_dtypes(tmp_path, name):
    if name.endswith(".safetensors"):
        save_file(STATE, tmp_path / name)
    else:
        torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=name != "old.pt")
    state = opening.read_file(tmp_path / name, meta=True)
    assert {key: (tensor.shape, tensor.dtype) for key, tensor in state.items()} == {
        key: (tensor.shape, tensor.dtype) for key, tensor in STATE.items()
    }
    assert all(tensor.is_meta for tensor in state.values())


def test_shards_are_joined(tmp_path, clip):
    for write, pattern, index in (
        (torch.save, "pytorch_model-0000{}-of-00002.bin", "pytorch_model.bin.index.json"),
        (save_file, "model-0000{}-of-00002.safetensors", "model.safetensors.index.json"),
    ):
        names = [pattern.format(i) for i in (1, 2)]
        weight_map = {key: names[i % 2] for i, key in enumerate(clip)}
        for name in names:
            write({key: clip[key] for key in clip if weight_map[key] == name}, tmp_path / name)
        (tmp_path / index).write_text(json.dumps({"weight_map": weight_map}))
        weights = open_weights(tmp_path)
        assert equal(weights.load(), clip)
        assert [file.name for file in weights.files] == names  # of a folder with both, those of safetensors
        assert equal(open_weights(tmp_path / index).load(), clip)
    (tmp_path / index).write_text(json.dumps({"weight_map": weight_map | {"lost": names[0]}}))
    with pytest.raises(ConvertError, match="1 keys are in no shard: lost"):
        open_weights(tmp_path)
    save_file(clip, tmp_path / names[1])
    with pytest.raises(ConvertError, match="is in another shard too"):
        open_weights(tmp_path)


def test_models_in_folders(tmp_path, clip):
    for name in ("one", "two", "empty"):
        (tmp_path / name).mkdir()
    save_file(clip, tmp_path / "one" / "diffusion_pytorch_model.safetensors")
    save_file(clip, tmp_path / "two" / "model.safetensors")
    assert opening.models_in(tmp_path) == [tmp_path / "one", tmp_path / "two"]
    with pytest.raises(Failure, match="a folder of several models; add --system, or name one of one, two"):
        open_weights(tmp_path)
    assert equal(open_weights(tmp_path / "one").load(), clip)


def test_side_files_are_read_with_the_weights(tmp_path):
    state = published("karlo-prior", PRIOR)
    mean, std = state.pop("clip_mean"), state.pop("clip_std")
    torch.save({"state_dict": state}, tmp_path / "prior.ckpt")
    with pytest.raises(Failure, match=r"prior.ckpt: needs clip_mean and clip_std; put .* next to it: \*_stats.th"):
        open_weights(tmp_path)
    torch.save((mean, std), tmp_path / "ViT-L-14_stats.th")
    for source in (tmp_path, tmp_path / "prior.ckpt"):
        weights = open_weights(source)
        assert equal(weights.load(), state | {"clip_mean": mean, "clip_std": std})
        assert weights.state["clip_mean"].is_meta
    torch.save((mean,), tmp_path / "ViT-L-14_stats.th")
    with pytest.raises(ConvertError, match="1 tensors, where clip_mean and clip_std are needed"):
        open_weights(tmp_path)


def test_configurations(tmp_path):
    source = all_layouts()["hf-clip"]
    assert opening.configuration(source, tmp_path / "x") is None
    assert opening.configuration(all_layouts()["openai-dvae"], tmp_path / "x") is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert opening.configuration(source, tmp_path / "x") == {"model_type": "clip"}
    for wrong in ("[1]", "{", "[" * 100_000, "\udc00"):
        (tmp_path / "config.json").write_bytes(wrong.encode("utf-8", "surrogatepass"))
        with pytest.raises(ConvertError, match=r"config\.json: not a configuration in JSON"):
            opening.configuration(source, tmp_path / "x")
    (tmp_path / "text_proj").mkdir()
    (tmp_path / "text_proj" / "config.json").write_text("{}")
    decoder = all_layouts()["diffusers-decoder"]
    assert opening.configuration(decoder, tmp_path / "decoder" / "x") == {"text_proj": {}}


def test_published_files_are_known_by_their_checksum(tmp_path, monkeypatch):
    (tmp_path / "x.pt").write_bytes(b"abc")
    clip, karlo, dvae = (all_layouts()[name] for name in ("openai-clip", "karlo-prior", "openai-dvae"))
    assert len(clip.checksums) == 9

    def name(layout):
        return opening.Weights(layout, {}, {tmp_path / "x.pt": {}}).published_name()

    assert name(clip) is None
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    monkeypatch.setitem(clip.checksums, abc, "ABC.pt")
    monkeypatch.setitem(karlo.checksums, "900150983cd24fb0d6963f7d28e17f72", "abc.ckpt")
    assert (name(karlo), name(clip), name(dvae)) == ("abc.ckpt", "ABC.pt", None)
