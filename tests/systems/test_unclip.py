from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.diffusion.guidance import classifier_free, threshold
from dalle_cli.diffusion.process import Process
from dalle_cli.diffusion.respacing import timesteps
from dalle_cli.diffusion.samplers import ddim
from dalle_cli.diffusion.schedules import cosine
from dalle_cli.models.conditions.text import TextCondition
from dalle_cli.nn.noise import noise_source
from dalle_cli.nn.prepacked import without_prepacking
from dalle_cli.registry import RecipeError
from dalle_cli.systems import systems
from dalle_cli.systems.device import Device
from dalle_cli.systems.unclip import UnCLIP, UnCLIPOptions
from tests.diffusion.conftest import DEVIATION, MEAN, best_network
from tests.fixtures.miniatures import CPU, packs, unclip_recipes
from tests.systems.test_glide import close

PROMPTS = ["a red circle", "a blue square", "a star"]
QUICK = UnCLIPOptions(steps="4", up_steps="2", up_steps_2="2")
SEEDS = [[1000 * p + i for i in range(3)] for p in range(3)]


class Prior:
    """Embeddings of a text plus the seed's own noise; remembers how it was asked."""

    def __init__(self, system):
        self.system, self.asked = system, []

    def sample(self, texts, seeds, **how):
        self.asked.append(how)
        return self.system.embed_texts(texts) + noise_source(torch.tensor(seeds))(torch.empty(len(texts), 8))


def build(device=CPU, **parts):
    system = systems.build({"type": "unclip"}, "system", device=device, **parts)
    if "prior" not in parts:
        system.prior = Prior(system)
    return system


@pytest.fixture
def base(unclip):
    return build(decoder=unclip.decoder, clip=unclip.clip)


@pytest.fixture
def whole(unclip):
    return build(decoder=unclip.decoder, clip=unclip.clip, upsampler=unclip.upsampler, upsampler_2=unclip.upsampler_2)


def test_image_is_decoded_from_the_sampled_embedding(base):
    options = UnCLIPOptions(steps="5", guidance_scale=2.0, prior_steps="7", prior_guidance_scale=4.0, prior_samples=3)
    drawn = base.generate(PROMPTS, SEEDS, options, batch_size=9)
    assert drawn.shape == (3, 3, 3, 8, 8)
    assert base.prior.asked == [{"guidance_scale": 4.0, "steps": "7", "num_samples": 3}]
    embedding = base.sample_embeddings(["a star"], [2001], options)
    told = torch.cat([embedding, embedding])
    model = base.decoder.model
    packed = base.decoder.tokenizer.pack(["a star", ""], model.conditions["text"].context_length)
    ids, real = map(torch.from_numpy, packed)
    given = model.encode(text=(ids, real), clip=(told, torch.tensor([True, False])))
    guided = threshold(classifier_free(base.decoder.process.denoiser(model, **given), 2.0))
    x = noise_source(torch.tensor([2001]))(torch.empty(1, 3, 8, 8))
    with torch.no_grad():
        close(drawn[2, 1][None], ddim(base.decoder.process, guided, x, timesteps("5")).clamp(-1, 1))
    assert len(drawn.flatten(0, 1).flatten(1).unique(dim=0)) == 9


def test_image_does_not_depend_on_the_batch(whole):
    options = replace(QUICK, sampler="ddpm", up_sampler="ddpm")
    seeds = [own[:2] for own in SEEDS]
    drawn = whole.generate(PROMPTS, seeds, options, batch_size=6)
    assert drawn.shape == (3, 2, 3, 32, 32)
    assert drawn.abs().max() <= 1
    close(whole.generate(PROMPTS[1:], seeds[1:], options, batch_size=3), drawn[1:])
    close(whole.generate(PROMPTS[2:], [seeds[2][::-1]], options, batch_size=2)[0], drawn[2].flip(0))


@packs
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_image_is_bit_identical_in_any_batch(unclip, kind):
    parts = {name: getattr(unclip, name) for name in ("decoder", "clip", "prior", "upsampler")}
    whole = build(Device("cpu", kind), **parts)
    options = replace(QUICK, prior_samples=2, prior_guidance_scale=4.0, prior_steps="3", guidance_scale=2.0)
    drawn = whole.generate(PROMPTS, SEEDS, options, batch_size=9)
    assert torch.equal(whole.generate(PROMPTS, SEEDS, options, batch_size=2), drawn)
    assert torch.equal(whole.generate(PROMPTS[2:], [SEEDS[2][:1]], options, batch_size=1)[0], drawn[2, :1])


def test_every_option_matters(whole):
    seen = []
    changes: dict[str, Any]
    for changes in (
        {}, {"steps": "4"}, {"sampler": "ddpm"}, {"eta": 0.5}, {"guidance_scale": 1.0},
        {"dynamic_threshold": 0.5}, {"up_steps": "2"},
        {"up_sampler": "ddpm"}, {"up_temperature": 0.5}, {"up_steps_2": "2"}, {"up_sampler_2": "ddpm"},
    ):  # fmt: skip
        options = replace(UnCLIPOptions(steps="3", up_steps="3", up_steps_2="3", guidance_scale=4.0), **changes)
        seen.append(whole.generate(PROMPTS[:1], [[5]], options, batch_size=1))
    assert torch.pdist(torch.stack(seen).flatten(1), p=float("inf")).min() > 1e-3


@pytest.mark.parametrize("kind", ["prior", "ar_prior"])
def test_both_kinds_of_priors_work(unclip, kind):
    system = build(decoder=unclip.decoder, clip=unclip.clip, prior=getattr(unclip, kind))
    options = replace(QUICK, prior_steps="4", prior_guidance_scale=2.0, prior_samples=2)
    drawn = system.sample_embeddings(PROMPTS, [1, 2, 3], options)
    assert drawn.shape == (3, 8)
    torch.testing.assert_close(system.sample_embeddings(PROMPTS[1:2], [2], options)[0], drawn[1], rtol=1e-3, atol=1e-3)
    assert (system.sample_embeddings(PROMPTS, [4, 5, 6], options) - drawn).abs().max() > 1e-3

    def fit(count):
        found = system.sample_embeddings(PROMPTS, [1, 2, 3], replace(options, prior_samples=count))
        return torch.cosine_similarity(found, system.embed_texts(PROMPTS), dim=1)

    assert (fit(16) >= fit(1) - 1e-5).all()
    assert (fit(16) > fit(1) + 1e-3).any()
    assert system.prior.clip is system.clip.model
    assert system.checkpoints(options).keys() == {"decoder", "clip", "prior"}
    assert system.checkpoints(options, prior=False).keys() == {"decoder", "clip"}
    assert system.generate(PROMPTS[:1], [[1]], options, 1).shape == (1, 1, 3, 8, 8)


def test_generate_equals_its_stages(whole):
    options = UnCLIPOptions(steps="4", sampler="ddpm", up_steps="3", up_steps_2="2")
    seeds = [5, 6]
    noise = whole.noise(seeds)
    embeddings = whole.sample_embeddings(PROMPTS[:2], seeds, options)
    pictures = whole.decode(embeddings, PROMPTS[:2], noise(whole.blank(2)), options, noise)
    large = whole.upsample(pictures, seeds, options).clamp(-1, 1)
    close(whole.generate(PROMPTS[:2], [[5], [6]], options, 2)[:, 0], large)
    with pytest.raises(ValueError, match="needs a noise stream"):
        whole.decode(embeddings, PROMPTS[:2], whole.blank(2), options)


def test_inversion_recovers_the_image(base):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    told = base.embed_images(images)
    options = UnCLIPOptions(steps="ddim20", guidance_scale=1.0)
    x = base.invert(images, told, PROMPTS[:2], "ddim20", iters=2)
    again = base.decode(told, PROMPTS[:2], x, options, exact=True)
    assert (again - images).square().mean().sqrt() < 3e-2
    other = base.decode(told.flip(0), PROMPTS[:2], x, options, exact=True)
    assert (other - images).abs().max() > 5e-2  # the embedding says a part of it
    assert (base.invert(images, told, PROMPTS[:2], "2") - base.invert(images, told, PROMPTS[:2], "2", 3.0)).std() > 1e-3


def test_inversion_of_eps_networks_clips_x0(base, monkeypatch):
    process = Process(cosine(1000))
    best = best_network(process)

    def network(x, t):
        return best(x, t) + 0.02 * torch.sin(20 * x)

    monkeypatch.setattr(base.decoder, "process", process)
    monkeypatch.setattr(base.decoder, "denoiser", lambda texts, scale, **told: process.denoiser(network))
    images = (MEAN + DEVIATION * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    told = base.embed_images(images)
    x = base.invert(images, told, PROMPTS[:2], "27", iters=5)
    assert 0.8 < x.std() < 1.2
    again = base.decode(told, PROMPTS[:2], x, UnCLIPOptions(steps="27", guidance_scale=1.0), exact=True)
    assert (again - images).square().mean().sqrt() < 6e-2  # 30 dB; without clamping, 7


def test_embeddings_are_those_of_clip(base):
    clip = base.clip.model
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(base.embed_images(image), clip.encode_image(image))
    assert base.embed_images(torch.rand(1, 3, 8, 8)).shape == (1, 8)
    texts = base.embed_texts(["a star", "a star", "a ring"])
    torch.testing.assert_close(texts[0], texts[1])
    torch.testing.assert_close(
        torch.nn.functional.normalize(texts, dim=-1), base.clip.embed_texts(["a star", "a star", "a ring"])
    )
    options, noise = UnCLIPOptions(steps="3"), base.noise([4])(base.blank(1))
    without = base.decode(None, ["a star"], noise, options)
    zero = base.decode(torch.zeros(1, 8), ["a star"], noise, options)
    assert (without - zero).abs().max() > 1e-3


def test_text_is_encoded_once(base, monkeypatch):
    read = []
    forward = TextCondition.forward
    monkeypatch.setattr(
        TextCondition, "forward", lambda self, ids, real: read.append(len(ids)) or forward(self, ids, real)
    )
    base.generate(PROMPTS[:1], [[1, 2, 3]], UnCLIPOptions(steps="5"), batch_size=3)
    assert read == [2]  # with it, and without


def test_karlo_decoder_and_two_stage_upsampler(unclip):
    system = build(decoder=unclip.karlo, clip=unclip.clip, upsampler=unclip.last_step)
    options = UnCLIPOptions(
        steps="3",
        sampler="ddpm",
        guidance_scale=8.0,
        prior_guidance_scale=4.0,
        prior_samples=1,
        up_steps="7",
        up_sampler="ddpm",
    )
    drawn = system.generate(PROMPTS, [[1]] * 3, options, 3)
    assert drawn.shape == (3, 1, 3, 16, 16)
    assert torch.pdist(drawn.flatten(1)).min() > 1e-3
    network: Any = system.upsamplers[0].model
    network.last.load_state_dict(network.first.state_dict())
    assert (system.generate(PROMPTS, [[1]] * 3, options, 3) - drawn).abs().max() > 1e-3  # the last step has its own
    assert system.decoder.clip is system.clip.model  # not loaded twice


def test_known_region_is_kept(unclip):
    image, mask = torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    mask[..., 8:] = 0

    def region(size):
        step = 16 // size
        return image[..., ::step, ::step], mask[..., ::step, ::step]

    for decoder, more in ((unclip.decoder, {}), (unclip.inpaint, {"upsampler": unclip.upsampler})):
        system = build(decoder=decoder, clip=unclip.clip, **more)
        drawn = system.generate(PROMPTS[:1], [[1, 2]], UnCLIPOptions(steps="4", up_steps="3"), 2, known_region=region)
        known, where = region(system.size)
        close(drawn[0] * where, (known * where).expand(2, -1, -1, -1))


def test_steps_and_finished_images_are_reported(base):
    seen, counted = [], []
    base.generate(PROMPTS, SEEDS, UnCLIPOptions(steps="2"), 4, counted.append, on_step=lambda t, x0: seen.append(t))
    assert counted == [4, 4, 1]
    assert seen == timesteps("2")[::-1] * 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prior_steps": "0"}, "steps '0'"),
        ({"up_steps_2": "2000"}, "there are 1000 in all"),
        ({"prior_guidance_scale": -1.0}, "prior_guidance_scale -1.0"),
        ({"prior_samples": 0}, "prior_samples 0"),
        ({"eta": 1.5}, "eta 1.5 is not between 0 and 1"),
    ],
)
def test_invalid_options_are_refused(options, said):
    with pytest.raises(RecipeError, match=said):
        UnCLIPOptions(**options)


@pytest.mark.parametrize("decoder", ["decoder", "karlo"])
def test_decoder_can_read_text_only(unclip, decoder):
    system = systems.build({"type": "glide"}, "system", device=CPU, decoder=getattr(unclip, decoder))
    options = system.options_type(steps="4", guidance_scale=1.0)
    drawn = system.generate(PROMPTS[:2], [[1], [1]], options, batch_size=2)  # one noise, two texts
    assert drawn.shape == (2, 1, 3, 8, 8)
    assert (drawn[0] - drawn[1]).abs().max() > 0.01
    told = system.decoder.denoiser(PROMPTS[:1], image_embedding=torch.ones(1, 8))
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([500])
    assert (told(x, t).x0 - system.decoder.denoiser(PROMPTS[:1])(x, t).x0).abs().max() > 0.01


def test_parts_that_do_not_fit_are_refused(unclip, glide, tmp_path):
    with pytest.raises(RecipeError, match=r"is an upsampler; name it as parts\.upsampler"):
        build(decoder=unclip.upsampler, clip=unclip.clip)
    with pytest.raises(RecipeError, match="reads no CLIP embeddings; use it in a system of type glide"):
        build(decoder=glide.decoder, clip=unclip.clip)
    blind = str(tmp_path / "blind.safetensors")  # of the decoders in conftest.py, one without its text
    recipe = unclip_recipes(unclip.clip)["decoder"]
    recipe["model"]["conditions"].pop("text")
    recipe.pop("tokenizer")
    checkpoint.save(Path(blind), checkpoint.compose(recipe).model.state_dict(), recipe)
    with pytest.raises(RecipeError, match="reads no text by itself; use it in a system of type unclip"):
        systems.build({"type": "glide"}, "system", device=CPU, decoder=blind)
    with pytest.raises(RecipeError, match=r"parts\.upsampler: .* does not upsample images of 8 px"):
        build(decoder=unclip.decoder, clip=unclip.clip, upsampler=unclip.upsampler_2)
    with pytest.raises(RecipeError, match=r"parts\.upsampler_2 enlarges the output of parts\.upsampler"):
        UnCLIP.check(UnCLIPOptions(), {"upsampler_2": "x"})
    UnCLIP.check(UnCLIPOptions(), {"upsampler": "y", "upsampler_2": "x"})
    with pytest.raises(RecipeError, match=r"parts\.prior: generating from text needs a prior"):
        build(prior=None, decoder=unclip.decoder, clip=unclip.clip).sample_embeddings(["a"], [1], UnCLIPOptions())
    with pytest.raises(RecipeError, match=r"parts\.prior: .* is not a prior over CLIP embeddings"):
        build(prior=unclip.upsampler, decoder=unclip.decoder, clip=unclip.clip).sample_embeddings(
            [], [], UnCLIPOptions()
        )


def test_bf16_is_close_to_float32(unclip, base):
    half = build(Device("cpu", torch.bfloat16), decoder=unclip.decoder, clip=unclip.clip)
    options = UnCLIPOptions(steps="3", guidance_scale=1.0)
    told = base.sample_embeddings(PROMPTS, [1, 2, 3], options)
    noise = base.noise([1, 2, 3])(base.blank(3))
    a, b = (system.decode(told, PROMPTS, noise, options) for system in (base, half))
    assert 0 < (a - b).abs().mean() < 0.1
    assert checkpoint.load(unclip.decoder).clip is not None


def test_offload_is_bit_identical(unclip, base):
    """In bf16 too, where each has its own type in its turn."""
    for dtype in (torch.float32, torch.bfloat16):
        parts = {"decoder": unclip.karlo, "upsampler": unclip.upsampler, "clip": unclip.clip}
        drawn = []
        for offload in (False, True):
            system = build(Device("cpu", dtype, offload=offload), **parts)
            noise = system.noise([3])(system.blank(1))
            options = UnCLIPOptions(steps="2", up_steps="2", guidance_scale=2.0)
            with without_prepacking():  # which turns are
                embedding = system.embed_texts(["a red circle"])
                pictures = system.decode(embedding, ["a red circle"], noise, options)
                drawn.append(system.upsample(pictures, [3], options))
        assert torch.equal(*drawn)


def test_upsampler_inputs_are_not_rounded(whole):
    pictures = torch.full((1, 3, 8, 8), 0.098) + torch.linspace(0, 0.003, 64).view(8, 8)
    one, two = (
        whole.upsample(some, [5], UnCLIPOptions(up_steps="2", up_steps_2="2")) for some in (pictures, pictures.mT)
    )
    assert (one - two).abs().max() > 0
