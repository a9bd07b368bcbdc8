"""Published folders in miniature: imported, sampled from, exported back."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from dalle_cli import checkpoint, images, recipe
from dalle_cli.convert import systems
from dalle_cli.convert.importing import ImportOptions
from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.recognition import export_state
from dalle_cli.exits import BAD_INPUT, WOULD_OVERWRITE, Failure
from dalle_cli.generate.outputs import Collected
from dalle_cli.generate.sample import SampleOptions, sample
from dalle_cli.models import models
from dalle_cli.registry import RecipeError
from dalle_cli.text.learn import learn
from tests.convert.miniatures import DECODER, HALF, PRIOR, UNET
from tests.convert.test_importing import CAPTIONS, TEXT, VIT, no_vocabularies  # noqa: F401  (a fixture)

WIDTH = TEXT["width"]
CLIP = {"type": "clip", "embed_dim": 24, "image": VIT, "text": TEXT}
PRIOR = PRIOR | {"context_length": TEXT["context_length"], "text_width": WIDTH, "width": 64, "heads": 1, "depth": 1}
CONDITIONS = {
    "clip": {"type": "clip-condition", "embed_dim": 24, "tokens": 4, "width": 16},
    "text": {"type": "clip-text-condition", "embed_dim": 24, "text_width": WIDTH, "width": 16},
}
SMALL = {"base_channels": 32, "channel_mult": [1, 2]}
DECODER = DECODER | SMALL | {"conditions": CONDITIONS}
HALF = HALF | SMALL
UPSAMPLER = {"type": "two-stage-unet", "first": HALF, "last": HALF}
SQUARE = {"embed_dim": WIDTH}  # diffusers has one width for embeddings and states


def published(layout, node):
    torch.manual_seed(0)
    return export_state(layout, node, models.build(node).state_dict())


@pytest.fixture
def vocab(tmp_path):
    learn(CAPTIONS, 522, "clip").save(tmp_path / "words.json")
    return str(tmp_path / "words.json")


def karlo(folder):
    """Karlo's files, in miniature; the published states."""
    folder.mkdir()
    states = {
        "prior": published("karlo-prior", PRIOR),
        "decoder": published("karlo-decoder", DECODER),
        "improved-sr": published("karlo-upsampler", UPSAMPLER),
    }
    stats = states["prior"].pop("clip_mean"), states["prior"].pop("clip_std")
    for name, state in states.items():
        torch.save({"state_dict": state}, folder / f"{name}-ckpt-step=1.ckpt")
    torch.save(stats, folder / "ViT-L-14_stats.th")
    torch.save(published("openai-clip", CLIP), folder / "ViT-L-14.pt")
    return states


def bring(folder, vocab, out="out", **more):
    return systems.import_system(str(folder), out, ImportOptions(vocab, **more), [].append)


def test_karlo(tmp_path, vocab):
    states = karlo(tmp_path / "karlo")
    made = bring(tmp_path / "karlo", vocab)
    assert {part: result["layout"] for part, result in made["parts"].items()} == {
        **{"clip": "openai-clip", "prior": "karlo-prior", "decoder": "karlo-decoder"},
        "upsampler": "karlo-upsampler",
    }
    system = recipe.load("out/system.yaml", "systems")
    assert system["system"] == {"type": "unclip"}
    assert system["parts"] == {part: f"./{part}" for part in ("prior", "decoder", "upsampler", "clip")} | {
        "reranker": "./clip"
    }
    assert (system["sample"]["prior_steps"], system["sample"]["steps"], system["sample"]["up_steps"]) == (
        "25",
        "50",
        "7",
    )
    assert (system["sample"]["prior_guidance_scale"], system["sample"]["guidance_scale"]) == (4.0, 8.0)
    back = export_state("karlo-decoder", DECODER, checkpoint.read_tensors(checkpoint.resolve("out/decoder")))
    assert back.keys() == states["decoder"].keys()
    assert all(torch.equal(back[key], states["decoder"][key]) for key in back)
    with pytest.raises(Failure, match="exists; add --overwrite") as caught:
        bring(tmp_path / "karlo", vocab)
    assert caught.value.code == WOULD_OVERWRITE


def diffusers(folder, variation=False):
    """A pipeline's folder, in miniature."""
    prior = PRIOR | SQUARE
    conditions = {name: condition | {"embed_dim": WIDTH} for name, condition in CONDITIONS.items()}
    clip = CLIP | SQUARE | {"fixed_logit_scale": 100.0}
    state = published("diffusers-decoder", DECODER | {"conditions": conditions}) | published(
        "diffusers-upsampler", UPSAMPLER
    )
    state |= published("diffusers-clip", clip)
    if not variation:
        state |= {f"prior.{key}": tensor for key, tensor in published("diffusers-prior", prior).items()}
        state = {key: tensor for key, tensor in state.items() if not key.startswith("image_encoder.")}
    for name in {key.partition(".")[0] for key in state}:
        part_state = {
            key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")
        }
        (folder / name).mkdir(parents=True)
        stem = "model" if name.endswith("encoder") else "diffusion_pytorch_model"
        save_file(part_state, folder / name / f"{stem}.safetensors")
    (folder / "text_encoder" / "config.json").write_text(json.dumps({"num_attention_heads": 1}))
    return state


@pytest.mark.parametrize("variation", [False, True])
def test_diffusers_folder(tmp_path, vocab, variation):
    diffusers(tmp_path / "karlo", variation)
    made = bring(tmp_path / "karlo", vocab)
    prior = set() if variation else {"prior"}
    assert made["parts"].keys() == {"decoder", "upsampler", "clip"} | prior
    assert made["parts"]["clip"]["layout"] == ("diffusers-clip" if variation else "hf-clip")
    system = recipe.load("out/system.yaml", "systems")
    assert system["sample"]["steps"] == "25"
    assert ("reranker" in system["parts"]) is variation  # a reranker needs an image tower


def test_glide_gives_two_systems(tmp_path):
    words = learn(CAPTIONS, 300, "glide")
    folder = tmp_path / "glide"
    folder.mkdir()
    words.save(folder / "vocab.bpe")
    text = {
        "type": "text-condition",
        "vocab_size": words.vocab_size,
        "context_length": 6,
        "width": 64,
        "depth": 1,
        "heads": 1,
    }
    low = {"type": "low-res-condition", "factor": 4, "resize": "bilinear"}
    for name, more in {
        "base": {},
        "upsample": {"low_res": low},
        "base_inpaint": {"inpaint": {"type": "inpaint-condition"}},
    }.items():
        node = UNET | SMALL | {"conditions": {"text": text, **more}}
        torch.save(published("openai-glide", node), folder / f"{name}.pt")
    made = bring(folder, None)
    assert made["parts"].keys() == {"decoder", "upsampler", "inpaint_decoder"}
    assert made["recipes"] == ["out/system.yaml", "out/inpaint.yaml"]
    plain, filling = (recipe.load(path, "systems") for path in made["recipes"])
    assert plain["parts"] == {"decoder": "./decoder", "upsampler": "./upsampler"}
    assert (plain["sample"]["steps"], plain["sample"]["guidance_scale"]) == ("100", 3.0)
    assert (filling["parts"], filling["sample"]["guidance_scale"]) == ({"decoder": "./inpaint_decoder"}, 5.0)


def test_errors_write_nothing(tmp_path, vocab):
    folder = tmp_path / "karlo"
    states = karlo(folder)

    def refused(error, message):
        with pytest.raises(error, match=message):
            bring(folder, vocab)
        assert not (tmp_path / "out").exists()

    torch.save({"state_dict": states["decoder"] | {"model.stray": torch.ones(1)}}, folder / "decoder-ckpt-step=1.ckpt")
    refused(ConvertError, "1 unknown: model.stray")
    torch.save({"state_dict": states["decoder"]}, folder / "decoder-ckpt-step=1.ckpt")
    torch.save({"state_dict": states["decoder"]}, folder / "decoder-2.ckpt")
    refused(Failure, "are both the system's decoder; keep one of them")
    (folder / "decoder-2.ckpt").unlink()
    (folder / "ViT-L-14.pt").rename(tmp_path / "clip.pt")
    refused(Failure, "no clip among its weights; Karlo's is OpenAI's ViT-L-14.pt")
    torch.save({"bert.embeddings.word_embeddings.weight": torch.ones(1)}, folder / "bert.pt")
    refused(ConvertError, "weights of BERT")
    with pytest.raises(Failure, match="--system imports a folder, and this is a file") as caught:
        bring(tmp_path / "clip.pt", vocab)
    assert caught.value.code == BAD_INPUT
    with pytest.raises(Failure, match="a system is a folder; name one"):
        bring(folder, vocab, out="x.safetensors")


def test_failed_writes_leave_nothing(tmp_path, vocab, monkeypatch):
    karlo(tmp_path / "karlo")
    saved = []

    def full(path, *arguments, **more):
        saved.append(path)
        if len(saved) == 3:
            raise OSError("no space")
        path.parent.mkdir(parents=True)

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="no space"):
        bring(tmp_path / "karlo", vocab)
    assert not (tmp_path / "out").exists()


def quick(path):
    """Make a published recipe one of few steps, and of upsampling in one."""
    text = path.read_text()
    for key in ("prior_steps", "steps", "up_steps"):
        text = re.sub(rf"^(  {key}: ).*$", r"\g<1>'2'", text, flags=re.MULTILINE)
    path.write_text(text)


def test_imported_systems_can_be_moved(tmp_path, vocab):
    karlo(tmp_path / "karlo")
    bring(tmp_path / "karlo", vocab, precision="bf16")
    (tmp_path / "out").rename(tmp_path / "moved")
    quick(tmp_path / "moved" / "system.yaml")
    assert sample(["a red circle"], SampleOptions(recipe="moved", out="images", quiet=True), results=Collected()) == 0
    (image,) = (tmp_path / "images").glob("*.png")
    assert images.decode(str(image)).size == (256, 256)
    parts = "parts: {decoder: ./decoder, clip: ./clip}"
    (tmp_path / "moved" / "system.yaml").write_text(f"system: {{type: unclip}}\n{parts}\nsample: {{steps: 2}}")
    with pytest.raises(RecipeError, match=r"parts\.prior"):
        sample(
            ["a red circle"], SampleOptions(recipe="moved/system.yaml", out="others", quiet=True), results=Collected()
        )


def test_overrides_name_a_part(tmp_path, vocab):
    karlo(tmp_path / "karlo")
    words = ["decoder.model.head_dim=32", "prior.model.heads=2", "prior.task.clip_sample_range=7"]
    result = bring(tmp_path / "karlo", vocab, overrides=words)
    assert result["parts"]["decoder"]["model"]["head_dim"] == 32
    assert result["parts"]["prior"]["model"]["heads"] == 2
    assert result["parts"]["clip"]["model"]["image"]["heads"] == VIT["heads"]
    assert checkpoint.metadata(checkpoint.resolve("out/prior"))["recipe"]["task"]["clip_sample_range"] == 7
    for word, message in (
        ("model.head_dim=32", "with --system, begin with the name of a part"),
        ("decoderr.model.head_dim=32", r"did you mean 'decoder'"),
        ("decoder.train.steps=3", "an import takes overrides of model and task"),
    ):
        with pytest.raises(RecipeError, match=message):
            bring(tmp_path / "karlo", vocab, out="other", overrides=[word])
    assert not (tmp_path / "other").exists()
