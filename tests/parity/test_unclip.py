"""From prompt to image: ours and diffusers' unCLIP, with the same weights and noise."""

import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.convert.diffusers_pipeline import export
from dalle_cli.convert.networks.karlo import LOW_RES
from dalle_cli.diffusion.schedules import cosine
from dalle_cli.models import models
from dalle_cli.nn.noise import Stream, noise_source
from dalle_cli.systems import systems
from dalle_cli.systems.unclip import UnCLIPOptions
from dalle_cli.tasks.prior import candidate_seeds
from dalle_cli.text.learn import learn
from tests.fixtures.miniatures import CPU
from tests.parity.peers import Missing, fill, peer

CAPTIONS = ["a red circle", "a blue square", "a green star on a pink background"] * 2
SCHEDULER = "schedulers.scheduling_unclip"
WIDTH, CONTEXT, SIDE = 64, 24, 16
CLIP = {
    **{"type": "clip", "embed_dim": WIDTH},
    "image": {"type": "vit", "size": 32, "patch_size": 16, "width": 64, "depth": 1, "heads": 1},
    "text": {"type": "clip-text", "vocab_size": 522, "context_length": CONTEXT, "width": WIDTH, "depth": 2, "heads": 1},
}
PRIOR = {
    **{"type": "diffusion-prior", "embed_dim": WIDTH, "context_length": CONTEXT, "text_width": WIDTH, "width": 128},
    **{"depth": 2, "heads": 2},
}
UNET = {"type": "unet", "base_channels": 64, "channel_mult": [1, 2], "num_res_blocks": 1, "head_dim": 64}
DECODER = UNET | {
    "attention_factors": [2],
    "conditions": {
        "clip": {"type": "clip-condition", "embed_dim": WIDTH, "tokens": 4, "width": 32},
        "text": {"type": "clip-text-condition", "embed_dim": WIDTH, "text_width": WIDTH, "width": 32},
    },
}
HALF = UNET | {
    **{"attention_factors": [], "middle_attention": False, "scale_shift": False, "learned_variance": False},
    "conditions": {"low_res": LOW_RES},
}
NODES = {
    "clip": (CLIP, {"type": "clip"}),
    "prior": (PRIOR, {"type": "diffusion-prior", "schedule": "cosine", "clip_sample_range": 2.0}),
    "decoder": (DECODER, {"type": "decoder", "size": SIDE, "schedule": "cosine"}),
    "upsampler": (
        {"type": "two-stage-unet", "first": HALF, "last": HALF},
        {"type": "decoder", "size": 4 * SIDE, "schedule": "cosine", "variance": "small"},
    ),
}
STEPS = {"prior": 5, "decoder": 6, "super_res": 7}
SCALES = {"prior_guidance_scale": 2.0, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def peers():
    try:
        peer("transformers")
        return [peer(f"diffusers.{name}") for name in ("pipelines.deprecated.unclip.pipeline_unclip", SCHEDULER)]
    except Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """The folder of a small unCLIP, its recipe and its parts."""
    folder = tmp_path_factory.mktemp("unclip")
    words = learn(CAPTIONS, 522, "clip")
    for part, (model, task) in NODES.items():
        recipe = {"model": model, "task": task}
        if part != "upsampler":
            recipe["tokenizer"] = {"type": "clip", "path": "nowhere.json"}
        network = fill(models.build(model))
        checkpoint.save(folder / part / checkpoint.FILE, network.state_dict(), recipe, words)
    parts = ", ".join(f"{part}: ./{part}" for part in NODES)
    (folder / "system.yaml").write_text(f"system: {{type: unclip}}\nparts: {{{parts}}}\n")
    return folder


@pytest.fixture
def pipeline(system, peers, tmp_path):
    """diffusers' pipeline of the same, exported."""
    module, _ = peers
    export(str(system), str(tmp_path / "theirs"), None, False)
    pipeline = module.UnCLIPPipeline.from_pretrained(tmp_path / "theirs")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def exact(scheduler):
    """A scheduler with the table that it rounds to float32."""
    levels = torch.as_tensor(cosine(1000), dtype=torch.float64)
    assert (scheduler.alphas_cumprod / levels - 1).abs().max() < 1e-4
    scheduler.alphas_cumprod = levels
    scheduler.alphas = levels / torch.cat([torch.ones(1, dtype=torch.float64), levels[:-1]])
    scheduler.betas, scheduler.one = 1 - scheduler.alphas, torch.ones((), dtype=torch.float64)


@pytest.mark.parametrize("tables", ["exact", "rounded"])
def test_images_equal_the_pipeline(system, peers, pipeline, monkeypatch, tables):
    """Untrained networks amplify small differences: rounded tables change a few pixels by 1e-3."""
    seed, prompt = 7, "a red circle"
    if tables == "exact":
        for name in STEPS:
            exact(getattr(pipeline, f"{name}_scheduler"))
    ours = systems.build({"type": "unclip"}, "system", device=CPU, **{part: str(system / part) for part in NODES})
    options = UnCLIPOptions(
        **{"prior_steps": str(STEPS["prior"]), "steps": str(STEPS["decoder"]), "up_steps": str(STEPS["super_res"])},
        **{"sampler": "ddpm", "up_sampler": "ddpm", "up_temperature": 1.0, "prior_samples": 1, **SCALES},
    )
    image = ours.generate([prompt], [[seed]], options, 1)[0, 0]

    streams = {
        (1, WIDTH): noise_source(candidate_seeds([seed + Stream.PRIOR], 1)),
        (1, 3, SIDE, SIDE): noise_source(torch.tensor([seed])),
        (1, 3, 4 * SIDE, 4 * SIDE): noise_source(torch.tensor([seed + Stream.UPSAMPLER])),
    }

    def noise(shape, **_):
        return streams[tuple(shape)](torch.empty(shape))

    for module in peers:
        monkeypatch.setattr(module, "randn_tensor", noise)
    theirs = pipeline(
        prompt,
        **{f"{name}_num_inference_steps": count for name, count in STEPS.items()},
        **{"prior_guidance_scale": SCALES["prior_guidance_scale"], "decoder_guidance_scale": SCALES["guidance_scale"]},
        output_type="np",
    ).images[0]
    theirs = torch.from_numpy(theirs).movedim(-1, 0)
    assert image.shape == theirs.shape == (3, 4 * SIDE, 4 * SIDE)
    assert theirs.std() > 0.1
    assert ((theirs > 0) & (theirs < 1)).float().mean() > 0.1  # not all of it clamped
    difference = ((image + 1) / 2 - theirs).abs()
    assert (difference.max() if tables == "exact" else difference.mean()) < 1e-3
