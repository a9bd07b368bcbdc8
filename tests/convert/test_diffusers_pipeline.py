"""Export a system as a pipeline of diffusers, and import it back."""

import json

import pytest
import torch

from dalle_cli import checkpoint, recipe
from dalle_cli.convert import diffusers_pipeline as pipeline
from dalle_cli.convert.files import opening
from dalle_cli.convert.layout import ConvertError
from dalle_cli.exits import USAGE, WOULD_OVERWRITE, Failure
from tests.convert.test_importing import equal, no_vocabularies  # noqa: F401  (a fixture)
from tests.convert.test_systems import bring, diffusers, karlo, published, vocab  # noqa: F401  (a fixture)

FOLDERS = {"decoder", "text_proj", "super_res_first", "super_res_last", "text_encoder", "tokenizer"}
FOLDERS |= {"decoder_scheduler", "super_res_scheduler"}


@pytest.mark.parametrize("variation", [False, True])
def test_round_trip(tmp_path, vocab, variation):  # noqa: F811
    state = diffusers(tmp_path / "theirs", variation)
    bring(tmp_path / "theirs", vocab)
    files = pipeline.export("out", "again", None, False)
    more = {"image_encoder", "feature_extractor"} if variation else {"prior", "prior_scheduler"}
    assert {path.name for path in (tmp_path / "again").iterdir()} == FOLDERS | more | {"model_index.json"}
    assert all((tmp_path / file).is_file() for file in files)
    back = {}
    for name in {key.partition(".")[0] for key in state}:
        part = opening.read_file(next((tmp_path / "again" / name).glob("*.safetensors")))
        back |= {f"{name}.{key}": tensor for key, tensor in part.items()}
    assert equal(back, state)
    index = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert index["_class_name"] == ("UnCLIPImageVariationPipeline" if variation else "UnCLIPPipeline")
    assert index["text_proj"] == ["diffusers.pipelines.deprecated.unclip.text_proj", "UnCLIPTextProjModel"]
    assert json.loads((tmp_path / "again" / "super_res_last" / "config.json").read_text())["sample_size"] == 256
    bring(tmp_path / "again", None, "twice")  # with the vocabulary that was stored
    for part in recipe.load("out/system.yaml", "systems")["parts"].values():
        one, two = (checkpoint.read_tensors(checkpoint.resolve(f"{run}/{part}")) for run in ("out", "twice"))
        assert equal(one, two)


@pytest.mark.parametrize(("configured", "limit"), [(None, 5.0), (7.5, 7.5)])
def test_scheduler_gives_the_clip_sample_range(tmp_path, vocab, configured, limit):  # noqa: F811
    diffusers(tmp_path / "theirs")
    if configured:
        (tmp_path / "theirs" / "prior_scheduler").mkdir()
        content = json.dumps({"clip_sample_range": configured})
        (tmp_path / "theirs" / "prior_scheduler" / "scheduler_config.json").write_text(content)
    bring(tmp_path / "theirs", vocab)
    assert checkpoint.metadata(checkpoint.resolve("out/prior"))["recipe"]["task"]["clip_sample_range"] == limit
    pipeline.export("out", "again", None, False)
    written = json.loads((tmp_path / "again" / "prior_scheduler" / "scheduler_config.json").read_text())
    assert written["clip_sample_range"] == limit


def test_unsupported_systems_are_refused_early(tmp_path, vocab):  # noqa: F811
    karlo(tmp_path / "karlo")  # whose embeddings and text states are of different widths here
    bring(tmp_path / "karlo", vocab)
    with pytest.raises(ConvertError, match="of different widths"):
        pipeline.export("out", "again", None, False)
    system = tmp_path / "out" / "system.yaml"
    system.write_text("system: {type: unclip}\nparts: {decoder: ./decoder, clip: ./clip}")
    with pytest.raises(Failure, match="out: no upsampler; diffusers' pipeline has a decoder, one upsampler and a CLIP"):
        pipeline.export("out", "again", None, False)
    system.write_text("system: {type: glide}\nparts: {decoder: ./decoder}")
    with pytest.raises(Failure, match="holds a system of type unclip"):
        pipeline.export("out/system.yaml", "again", None, False)
    assert not (tmp_path / "again").exists()
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "model_index.json").touch()
    for precision, code in (("int8", USAGE), (None, WOULD_OVERWRITE)):
        with pytest.raises(Failure) as caught:
            pipeline.export("out", "again", precision, False)
        assert caught.value.code == code


def test_one_upsampler_is_written_twice(tmp_path, vocab):  # noqa: F811
    state = diffusers(tmp_path / "theirs")
    bring(tmp_path / "theirs", vocab)
    path = checkpoint.resolve("out/upsampler")
    metadata, tensors = checkpoint.metadata(path), checkpoint.read_tensors(path)
    half = {key.removeprefix("first."): tensor.clone() for key, tensor in tensors.items() if key.startswith("first.")}
    node = metadata["recipe"]["model"]["first"]
    checkpoint.save(path, half, {"model": node, "task": metadata["recipe"]["task"]})
    pipeline.export("out", "again", "fp16", False)
    one, two = (
        opening.read_file(tmp_path / "again" / f"super_res_{name}" / "diffusion_pytorch_model.safetensors")
        for name in ("first", "last")
    )
    assert equal(one, two)
    wanted = {key.removeprefix("super_res_first."): tensor.half() for key, tensor in state.items() if "s_first." in key}
    assert equal(one, wanted)
    assert torch.float16 in {tensor.dtype for tensor in one.values()}
