from pathlib import Path

import pytest

from dalle_cli import checkpoint
from dalle_cli.systems.loading import resolve
from dalle_cli.systems.system_file import write_system_file
from dalle_cli.text.loading import from_state


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Make a run under checkpoints/ from a checkpoint, with some sections of its recipe replaced."""
    monkeypatch.chdir(tmp_path)

    def make(name, source, **sections):
        folder = Path("checkpoints") / name
        folder.mkdir(parents=True)
        metadata = checkpoint.metadata(checkpoint.resolve(source))
        recipe = {**metadata["recipe"], **sections}
        tokenizer = metadata["tokenizer"] and from_state(metadata["tokenizer"])
        checkpoint.save(folder / checkpoint.FILE, checkpoint.read_tensors(Path(source)), recipe, tokenizer)
        return folder

    return make


def data(path):
    return {"type": "folder", "path": path, "size": 16}


def test_transformer_gets_the_clip_of_the_same_data(run, tiny):
    run("clip-other", tiny.clip, data=data("other"))
    run("clip-mine", tiny.clip, data=data("photos"))
    prior = run("prior-mine", tiny.dalle, data=data("photos"))
    path, system = write_system_file(prior) or (None, {})
    assert path == prior / "system.yaml"
    assert system["parts"]["reranker"] == "checkpoints/clip-mine"
    resolved = resolve("prior-mine")
    assert resolved.reranker == ("checkpoints/clip-mine",)
    assert resolved.reranker_source == "parts.reranker of prior-mine"
    assert Path(resolved.parts["transformer"]).samefile(prior / checkpoint.FILE)


def test_transformer_without_a_clip_of_its_own_gets_the_starter(run, tiny):
    run("clip-other", tiny.clip, data=data("other"))
    _, system = write_system_file(run("prior-mine", tiny.dalle, data=data("photos"))) or (None, {})
    assert system["parts"]["reranker"] == ["starter/clip", "starter/noised-clip"]


def test_system_file_of_the_user_is_kept(run, tiny):
    prior = run("prior-mine", tiny.dalle, data=data("photos"))
    (prior / "system.yaml").write_text("mine")
    assert write_system_file(prior) is None
    assert (prior / "system.yaml").read_text() == "mine"


def test_prior_needs_a_decoder_of_the_same_clip(run, tiny, unclip):
    frozen = {"clip": tiny.clip}
    prior = run("prior-unclip", unclip.prior, frozen=frozen)
    assert write_system_file(prior) is None
    run("decoder-mine", unclip.decoder, frozen=frozen)
    _, system = write_system_file(prior) or (None, {})
    assert system["parts"] == {
        "prior": "./model.safetensors", "decoder": "checkpoints/decoder-mine", "clip": tiny.clip,
        "reranker": tiny.clip,
    }  # fmt: skip
    assert resolve("prior-unclip").cls.has_latents


def test_other_models_get_no_system_file(run, tiny, glide):
    for name, source in (("clip", tiny.clip), ("dvae", tiny.dvae), ("decoder", glide.decoder)):
        assert write_system_file(run(name, source)) is None
    assert write_system_file(Path("checkpoints/none")) is None
