import json

import pytest
import torch
from safetensors.torch import save_file

from dalle_cli import checkpoint
from dalle_cli.convert.files import opening
from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.exits import Failure

ENCODER = {"blocks.group_1.block_1.res_path.conv_1.w": torch.ones(2)}
STATE = {"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.float16)}


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
def test_the_content_of_a_file_counts_and_not_its_name(tmp_path, name):
    for write in (save_file, torch.save):
        write(STATE, tmp_path / name)
        assert equal(opening.read(tmp_path / name), STATE)
        assert equal(opening.gather(str(tmp_path))[0], STATE)


def test_a_folder_with_the_same_weights_twice(tmp_path):
    torch.save(ENCODER, tmp_path / "pytorch_model.bin")
    torch.save(ENCODER, tmp_path / "other.bin")
    save_file(STATE, tmp_path / "model.safetensors")
    state, found = opening.gather(str(tmp_path))
    assert equal(state, STATE)
    assert found == [tmp_path / "model.safetensors"]


def test_a_model_in_two_files_is_joined(tmp_path):
    torch.save(ENCODER, tmp_path / "encoder.pkl")
    with pytest.raises(ConvertError, match=r"a part of openai-dvae; put encoder.pkl and decoder.pkl into one"):
        opening.gather(str(tmp_path / "encoder.pkl"))
    torch.save({"other": torch.ones(1)}, tmp_path / "decoder.pkl")
    (tmp_path / "README.md").write_text("beside")
    for source in (tmp_path, tmp_path / "encoder.pkl", tmp_path / "decoder.pkl"):
        state, found = opening.gather(str(source))
        assert state.keys() == {"encoder.blocks.group_1.block_1.res_path.conv_1.w", "decoder.other"}
        assert [file.name for file in found] == ["encoder.pkl", "decoder.pkl"]


@pytest.mark.parametrize(
    ("names", "said"),
    [((), "no weights in this folder"), (("a.pt", "b.ckpt"), "several files of weights; name one of a.pt, b.ckpt")],
)
def test_folders_that_do_not_tell(tmp_path, names, said):
    for name in names:
        torch.save(STATE, tmp_path / name)
    with pytest.raises(Failure, match=said):
        opening.gather(str(tmp_path))
    with pytest.raises(Failure, match="no such file or folder"):
        opening.gather(str(tmp_path / "gone"))


def test_a_checkpoint_of_ours_is_no_source(tmp_path, tiny):
    with pytest.raises(ConvertError, match="a checkpoint of dalle"):
        opening.read(checkpoint.resolve(tiny.clip))
    save_file(STATE, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-3])
    with pytest.raises(checkpoint.CheckpointError, match="cut short"):
        opening.read(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "old.pt"])
def test_an_outline_has_shapes_and_types_and_no_numbers(tmp_path, name):
    if name.endswith(".safetensors"):
        save_file(STATE, tmp_path / name)
    else:
        torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=name != "old.pt")
    outline = opening.read(tmp_path / name, empty=True)
    assert {key: (one.shape, one.dtype) for key, one in outline.items()} == {
        key: (one.shape, one.dtype) for key, one in STATE.items()
    }
    assert all(one.is_meta for one in outline.values())


def test_shards_are_joined(tmp_path):
    for write, first, index in (
        (torch.save, "pytorch_model-0000{}-of-00002.bin", "pytorch_model.bin.index.json"),
        (save_file, "model-0000{}-of-00002.safetensors", "model.safetensors.index.json"),
    ):
        names = [first.format(i) for i in (1, 2)]
        for name, key in zip(names, STATE):
            write({key: STATE[key]}, tmp_path / name)
        (tmp_path / index).write_text(json.dumps({"weight_map": dict(zip(STATE, names))}))
        state, found = opening.gather(str(tmp_path))
        assert equal(state, STATE)
        assert [file.name for file in found] == names  # of a folder with both, those of safetensors
        assert equal(opening.gather(str(tmp_path / index))[0], STATE)


def test_models_in_folders(tmp_path):
    for name in ("one", "two", "empty"):
        (tmp_path / name).mkdir()
    save_file(STATE, tmp_path / "one" / "diffusion_pytorch_model.safetensors")
    save_file(STATE, tmp_path / "two" / "model.safetensors")
    assert opening.models_in(tmp_path) == [tmp_path / "one", tmp_path / "two"]
    with pytest.raises(Failure, match="a folder of several models; add --system, or name one of one, two"):
        opening.gather(str(tmp_path))
    assert equal(opening.gather(str(tmp_path / "one"))[0], STATE)


def test_what_is_published_beside_weights_is_read_with_them(tmp_path):
    state = {"model.prd_emb": torch.ones(1, 1, 4)}
    torch.save({"state_dict": state}, tmp_path / "prior.ckpt")
    with pytest.raises(Failure, match=r"prior.ckpt: needs clip_mean and clip_std; put .* beside it: \*_stats.th"):
        opening.gather(str(tmp_path))
    torch.save((torch.zeros(4), torch.ones(4)), tmp_path / "ViT-L-14_stats.th")
    found = opening.gather(str(tmp_path))[0]
    assert equal(found, state | {"clip_mean": torch.zeros(4), "clip_std": torch.ones(4)})
    assert equal(opening.gather(str(tmp_path / "prior.ckpt"))[0], found)
    torch.save((torch.zeros(4),), tmp_path / "ViT-L-14_stats.th")
    with pytest.raises(ConvertError, match="1 tensors, where clip_mean and clip_std are needed"):
        opening.gather(str(tmp_path))


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


def test_published_files_are_known_by_their_sum(tmp_path, monkeypatch):
    (tmp_path / "x.pt").write_bytes(b"abc")
    source = all_layouts()["openai-clip"]
    assert len(source.checksums) == 9
    assert opening.published(source, tmp_path / "x.pt") is None
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    monkeypatch.setitem(source.checksums, abc, "ABC.pt")
    karlo = all_layouts()["karlo-prior"]
    monkeypatch.setitem(karlo.checksums, "900150983cd24fb0d6963f7d28e17f72", "abc.ckpt")
    assert opening.published(karlo, tmp_path / "x.pt") == "abc.ckpt"
    assert opening.published(source, tmp_path / "x.pt") == "ABC.pt"
    assert opening.published(all_layouts()["openai-dvae"], tmp_path / "x.pt") is None
