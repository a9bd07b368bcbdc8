"""The whole way from words to a picture, ours and that of diffusers' unCLIP, with the same weights and noise."""

from types import SimpleNamespace

import pytest
import torch

from dalle_cli import checkpoint, convert
from dalle_cli.convert.exporting import _vocabulary
from dalle_cli.convert.karlo import LOW_RES
from dalle_cli.diffusion.schedules import cosine
from dalle_cli.generate import systems
from dalle_cli.generate.unclip import PRIOR_SEED, UPSAMPLER_SEED, Sampling
from dalle_cli.models import models
from dalle_cli.nn.noise import stream
from dalle_cli.tasks.prior import LIMIT, candidates
from dalle_cli.text.learn import learn
from tests.generate.conftest import CPU
from tests.parity.peers import Missing, fill, peer

CAPTIONS = ["a red circle", "a blue square", "a green star on a pink background"] * 2
WIDTH, CONTEXT, SIDE = 64, 24, 16
CLIP = {
    **{"type": "clip", "embed_dim": WIDTH},
    "image": {"type": "vit", "size": 32, "patch": 16, "width": 64, "depth": 1, "heads": 1},
    "text": {"type": "clip-text", "vocab": 522, "context": CONTEXT, "width": WIDTH, "depth": 2, "heads": 1},
}
PRIOR = {
    **{"type": "diffusion-prior", "embed_dim": WIDTH, "context": CONTEXT, "states": WIDTH, "width": 128},
    **{"depth": 2, "heads": 2},
}
UNET = {"type": "unet", "channels": 64, "multiples": [1, 2], "blocks": 1, "head_width": 64}
DECODER = UNET | {
    "attention": [2],
    "conditions": {
        "clip": {"type": "clip-condition", "embed_dim": WIDTH, "tokens": 4, "width": 32},
        "text": {"type": "clip-text-condition", "embed_dim": WIDTH, "states": WIDTH, "width": 32},
    },
}
HALF = UNET | {
    **{"attention": [], "middle_attention": False, "scale_shift": False, "learned_variance": False},
    "conditions": {"low_res": LOW_RES},
}
NODES = {
    "embedder": (CLIP, {"type": "clip"}),
    "prior": (PRIOR, {"type": "diffusion-prior", "schedule": "cosine"}),
    "decoder": (DECODER, {"type": "decoder", "size": SIDE, "schedule": "cosine"}),
    "upsampler": (
        {"type": "last-step", "first": HALF, "last": HALF},
        {"type": "decoder", "size": 4 * SIDE, "schedule": "cosine", "variance": "small"},
    ),
}
STEPS = {"prior": 5, "decoder": 6, "super_res": 7}
SCALES = {"prior_scale": 2.0, "scale": 2.0}


@pytest.fixture(scope="module")
def peers():
    try:
        return SimpleNamespace(
            transformers=peer("transformers"),
            diffusers=peer("diffusers"),
            pipeline=peer("diffusers.pipelines.deprecated.unclip.pipeline_unclip"),
            text_proj=peer("diffusers.pipelines.deprecated.unclip.text_proj"),
            schedule=peer("diffusers.schedulers.scheduling_unclip"),
        )
    except Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Checkpoints of a small unCLIP by part, and their tokenizer."""
    folder = tmp_path_factory.mktemp("unclip")
    words = learn(CAPTIONS, 522, "clip")
    for part, (model, task) in NODES.items():
        recipe = {"model": model, "task": task}
        if part != "upsampler":
            recipe["tokenizer"] = {"type": "clip", "path": "nowhere.json"}
        network = fill(models.build(model))
        checkpoint.save(folder / part / checkpoint.FILE, network.state_dict(), recipe, words)
    return folder, words


def published(folder, part, layout):
    """The state of a part by module, and the modules' configurations."""
    node, _ = NODES[part]
    state = convert.write(layout, node, checkpoint.read_tensors(folder / part / checkpoint.FILE), configured=True)
    configs = convert.sources()[layout].config.write(convert.completed(node))
    if layout in ("diffusers-prior", "hf-clip"):
        return state, configs
    apart = {name: {} for name in configs}
    for key, tensor in state.items():
        name, _, rest = key.partition(".")
        apart[name][rest] = tensor
    return apart, configs


def built(kind, state, config, **changes):
    module = kind(**{key: value for key, value in config.items() if not key.startswith("_")} | changes)
    module.load_state_dict(state)
    return module.eval()


@pytest.fixture
def pipeline(parts, peers, tmp_path):
    """diffusers' pipeline of our weights, as its layouts and configurations write them."""
    folder, words = parts
    diffusers, transformers = peers.diffusers, peers.transformers
    prior, told = published(folder, "prior", "diffusers-prior")
    decoder, decoder_told = published(folder, "decoder", "diffusers-decoder")
    upsampler, upsampler_told = published(folder, "upsampler", "diffusers-upsampler")
    clip, clip_told = published(folder, "embedder", "hf-clip")
    for name, text in _vocabulary(words).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    text_told = {**clip_told["text_config"], "projection_dim": WIDTH}
    text = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**text_told))
    text.load_state_dict({key: value for key, value in clip.items() if key.startswith("text_")})
    kinds = {
        "prior": {"prediction_type": "sample", "clip_sample_range": LIMIT},  # Karlo's; diffusers' default is 5
        "decoder": {"variance_type": "learned_range"},
        "super_res": {},
    }
    found = peers.pipeline.UnCLIPPipeline(
        prior=built(diffusers.PriorTransformer, prior, told),
        decoder=built(diffusers.UNet2DConditionModel, decoder["decoder"], decoder_told["decoder"], sample_size=SIDE),
        text_proj=built(peers.text_proj.UnCLIPTextProjModel, decoder["text_proj"], decoder_told["text_proj"]),
        text_encoder=text.eval(),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(tmp_path, pad_token="!", model_max_length=CONTEXT),
        **{
            name: built(diffusers.UNet2DModel, upsampler[name], upsampler_told[name], sample_size=4 * SIDE)
            for name in ("super_res_first", "super_res_last")
        },
        **{f"{name}_scheduler": diffusers.UnCLIPScheduler(**kind) for name, kind in kinds.items()},
    )
    found.set_progress_bar_config(disable=True)
    return found


def exact(scheduler):
    """A scheduler with the table that it rounds to float32."""
    levels = torch.as_tensor(cosine(1000), dtype=torch.float64)
    assert (scheduler.alphas_cumprod / levels - 1).abs().max() < 1e-4
    scheduler.alphas_cumprod = levels
    scheduler.alphas = levels / torch.cat([torch.ones(1, dtype=torch.float64), levels[:-1]])
    scheduler.betas, scheduler.one = 1 - scheduler.alphas, torch.ones((), dtype=torch.float64)


@pytest.mark.parametrize("tables", ["exact", "rounded"])
def test_pictures_are_those_of_the_pipeline(parts, peers, pipeline, monkeypatch, tables):
    """Networks that never learnt make much of little: of the rounding of tables a few pixels of 1e-3."""
    folder, _ = parts
    seed, prompt = 7, "a red circle"
    if tables == "exact":
        for name in STEPS:
            exact(getattr(pipeline, f"{name}_scheduler"))
    system = systems.build({"type": "unclip"}, "system", device=CPU, **{part: str(folder / part) for part in NODES})
    options = Sampling(
        **{"prior_steps": str(STEPS["prior"]), "steps": str(STEPS["decoder"]), "up_steps": str(STEPS["super_res"])},
        **{"sampler": "ddpm", "up_sampler": "ddpm", "up_temperature": 1.0, "best_of": 1, **SCALES},
    )
    ours = system.draw([prompt], [[seed]], options, 1)[0, 0]

    streams = {
        (1, WIDTH): stream(candidates([seed + PRIOR_SEED], 1)),
        (1, 3, SIDE, SIDE): stream(torch.tensor([seed])),
        (1, 3, 4 * SIDE, 4 * SIDE): stream(torch.tensor([seed + UPSAMPLER_SEED])),
    }

    def noise(shape, **_):
        return streams[tuple(shape)](torch.empty(shape))

    for module in (peers.pipeline, peers.schedule):
        monkeypatch.setattr(module, "randn_tensor", noise)
    theirs = pipeline(
        prompt,
        **{f"{name}_num_inference_steps": count for name, count in STEPS.items()},
        **{"prior_guidance_scale": SCALES["prior_scale"], "decoder_guidance_scale": SCALES["scale"]},
        output_type="np",
    ).images[0]
    theirs = torch.from_numpy(theirs).movedim(-1, 0)
    assert ours.shape == theirs.shape == (3, 4 * SIDE, 4 * SIDE)
    assert theirs.std() > 0.1
    assert ((theirs > 0) & (theirs < 1)).float().mean() > 0.1  # not all of it clamped
    difference = ((ours + 1) / 2 - theirs).abs()
    assert (difference.max() if tables == "exact" else difference.mean()) < 1e-3
