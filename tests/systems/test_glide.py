import pytest
import torch

from dalle_cli.checkpoint import CheckpointError
from dalle_cli.data.degradations import quantize
from dalle_cli.diffusion.guidance import classifier_free, gradient_guided, threshold
from dalle_cli.diffusion.respacing import timesteps
from dalle_cli.diffusion.samplers import ddim, ddpm
from dalle_cli.models.conditions.text import TextCondition
from dalle_cli.nn.noise import noise_source
from dalle_cli.nn.prepacked import without_prepacking
from dalle_cli.registry import RecipeError
from dalle_cli.systems import systems
from dalle_cli.systems.device import Device
from dalle_cli.systems.diffusion import load_decoder, upsample
from dalle_cli.systems.glide import GLIDE, GLIDEOptions
from dalle_cli.systems.guides import Guide, toward_class, toward_clip
from tests.fixtures.miniatures import CPU, packs

PROMPTS = ["a red circle", "a blue square", "a star"]
SEEDS = [[1000 * p + i for i in range(3)] for p in range(3)]


def build(device=CPU, **parts):
    return systems.build({"type": "glide"}, "system", device=device, **parts)


@pytest.fixture
def base(glide):
    return build(decoder=glide.decoder)


@pytest.fixture
def whole(glide):
    return build(
        decoder=glide.decoder, upsampler=glide.upsampler, noised_clip=glide.noised_clip, classifier=glide.classifier
    )


def close(one, other, limit=1e-3):
    """On average: networks of random weights make much of how sums round."""
    assert one.shape == other.shape
    assert (one - other).abs().mean() < limit


def test_image_is_sampled_from_its_own_noise(base):
    drawn = base.generate(PROMPTS, SEEDS, GLIDEOptions(steps="5", guidance_scale=2.0), batch_size=9)
    assert drawn.shape == (3, 3, 3, 8, 8)
    task = base.decoder
    x = noise_source(torch.tensor([2001]))(torch.empty(1, 3, 8, 8))
    null = task.denoiser(["a star", ""])
    guided = threshold(classifier_free(null, 2.0))
    close(drawn[2, 1][None], ddim(task.process, guided, x, timesteps("5")).clamp(-1, 1))
    assert len(drawn.flatten(0, 1).flatten(1).unique(dim=0)) == 9


@pytest.mark.parametrize(
    "options",
    [
        GLIDEOptions(steps="5"),
        GLIDEOptions(steps="5", eta=1.0, dynamic_threshold=0.9),
        GLIDEOptions(steps="5", sampler="ddpm"),
        GLIDEOptions(steps="5", sampler="plms", guidance_scale=1.0),
        GLIDEOptions(steps="5", sampler="dpm++", guidance="classifier", guidance_scale=0.5),
        GLIDEOptions(steps="5", sampler="ddpm", guidance="clip", guidance_scale=0.5),
    ],
    ids=lambda one: f"{one.sampler}-{one.guidance}-{one.eta}",
)
def test_image_does_not_depend_on_the_batch(whole, options):
    drawn = whole.generate(PROMPTS, SEEDS, options, batch_size=9)
    assert drawn.shape == (3, 3, 3, 16, 16)
    assert drawn.abs().max() <= 1
    close(whole.generate(PROMPTS, SEEDS, options, batch_size=2), drawn)
    close(whole.generate(PROMPTS[2:], [SEEDS[2][::-1]], options, batch_size=3)[0], drawn[2].flip(0))


@packs
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_image_is_bit_identical_in_any_batch(glide, kind, scale):
    whole = build(Device("cpu", kind), decoder=glide.decoder, upsampler=glide.upsampler)
    options = GLIDEOptions(steps="5", up_steps="2", guidance_scale=scale)
    drawn = whole.generate(PROMPTS, SEEDS, options, batch_size=9)
    assert torch.equal(whole.generate(PROMPTS, SEEDS, options, batch_size=2), drawn)
    assert torch.equal(whole.generate(PROMPTS[2:], [SEEDS[2][:1]], options, batch_size=1)[0], drawn[2, :1])


def test_every_option_matters(whole):
    seen = {}
    for changes in (
        {}, {"steps": "6"}, {"sampler": "ddpm"}, {"sampler": "plms"}, {"sampler": "dpm++"}, {"eta": 0.5},
        {"guidance_scale": 1.0}, {"guidance": "clip"}, {"guidance": "classifier"},
        {"dynamic_threshold": 0.5}, {"up_steps": "2"},
        {"up_sampler": "ddpm"}, {"up_temperature": 0.5}, {"guidance_interval": [500, 999]},
    ):  # fmt: skip
        options = GLIDEOptions(**{"steps": "5", "up_steps": "3", "guidance_scale": 4.0} | changes)
        seen[str(changes)] = whole.generate(PROMPTS[:1], [[5]], options, batch_size=1)
    distinct = torch.stack(list(seen.values())).flatten(1)
    assert torch.pdist(distinct, p=float("inf")).min() > 1e-3


def test_text_is_encoded_once(base, monkeypatch):
    read = []
    forward = TextCondition.forward
    monkeypatch.setattr(
        TextCondition, "forward", lambda self, ids, real: read.append(len(ids)) or forward(self, ids, real)
    )
    base.generate(PROMPTS[:1], [[1, 2, 3]], GLIDEOptions(steps="5"), batch_size=3)
    assert read == [2]  # with it, and without


def test_gradient_guides_every_sampler(whole):
    task = whole.decoder
    x = noise_source(torch.tensor([5]))
    free = threshold(task.denoiser(PROMPTS[:1]))
    gradient = toward_class(whole._classifier, PROMPTS[:1], 2.0)
    whole.upsampler = None
    for sampler, draw in (
        ("ddim", lambda x, noise: ddim(task.process, gradient_guided(free, gradient), x, timesteps("5"), noise)),
        ("ddpm", lambda x, noise: ddpm(task.process, free, x, timesteps("5"), noise, mean_gradient=gradient)),
    ):
        options = GLIDEOptions(steps="5", sampler=sampler, guidance="classifier", guidance_scale=2.0)
        noise = noise_source(torch.tensor([5]))
        start = noise(torch.empty(1, 3, 8, 8))
        close(whole.generate(PROMPTS[:1], [[5]], options, 1)[0], draw(start, noise).clamp(-1, 1))
    assert x(torch.empty(1, 2)).shape == (1, 2)


def test_ordinary_clip_reads_predicted_x0(glide):
    task = load_decoder(CPU, glide.decoder)
    guide = Guide(CPU, glide.clip, ("noised-clip", "clip"), task)
    denoise = task.denoiser(PROMPTS[:2])
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([300, 300])
    step = toward_clip(guide, PROMPTS[:2], denoise, 1.0)(x, t)
    text = guide.task.embed_texts(PROMPTS[:2])

    def score(x):
        image = torch.nn.functional.interpolate(
            denoise(x, t).x0.clamp(-1, 1), guide.size, mode="bilinear", antialias=True
        )
        return (guide.task.embed_images(image) * text).sum(dim=1)

    up, down = score(x + 1e-2 * step / step.norm()), score(x - 1e-2 * step / step.norm())
    assert (up > down).all()


def test_known_region_is_kept(glide):
    image, mask = torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    mask[..., 8:] = 0

    def region(size):
        step = 16 // size
        return image[..., ::step, ::step], mask[..., ::step, ::step]

    for decoder, upsampler in (
        (glide.decoder, None), (glide.inpaint, None), (glide.inpaint, glide.upsampler_inpaint),
        (glide.decoder, glide.upsampler),
    ):  # fmt: skip
        system = build(decoder=decoder, **({"upsampler": upsampler} if upsampler else {}))
        options = GLIDEOptions(steps="5", up_steps="3")
        drawn = system.generate(PROMPTS[:1], [[1, 2]], options, 2, known_region=region)
        known, where = region(system.size)
        close(drawn[0] * where, (known * where).expand(2, -1, -1, -1), 1e-3)
        free = system.generate(PROMPTS[:1], [[1, 2]], options, 2)
        assert (drawn - free)[..., system.size // 2 :].abs().max() > 1e-2  # what is new knows what is known


def test_images_of_any_shape_are_upsampled(glide):
    task = load_decoder(CPU, glide.upsampler)
    small = torch.rand(2, 3, 4, 6) * 2 - 1
    drawn = upsample(CPU, task, PROMPTS[:2], small, noise_source(torch.tensor([1, 2])), GLIDEOptions(up_steps="3"))
    assert drawn.shape == (2, 3, 8, 12)
    again = upsample(
        CPU, task, PROMPTS[:2], quantize(small), noise_source(torch.tensor([1, 2])), GLIDEOptions(up_steps="3")
    )
    assert torch.equal(drawn, again)


def test_steps_are_reported(base):
    seen = []
    drawn = base.generate(PROMPTS[:1], [[1, 2]], GLIDEOptions(steps="5"), 2, on_step=lambda t, x0: seen.append((t, x0)))
    assert [t for t, _ in seen] == timesteps("5")[::-1]
    close(seen[-1][1], drawn[0])


def test_finished_images_are_counted(base):
    counted = []
    base.generate(PROMPTS, SEEDS, GLIDEOptions(steps="2"), 4, on_images=counted.append)
    assert counted == [4, 4, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": "0"}, "steps '0'"),
        ({"up_steps": "2000"}, "there are 1000 in all"),
        ({"eta": 1.5}, "eta 1.5 is not between 0 and 1"),
        ({"eta": 0.5, "sampler": "plms"}, "eta is only for sampler ddim; plms has none"),
        ({"guidance_scale": -1.0}, "guidance_scale -1.0"),
        ({"dynamic_threshold": 0.0}, "dynamic_threshold 0.0"),
        ({"guidance_interval": [400]}, "guidance_interval .400.: give the first and the last timestep"),
        ({"guidance_interval": [999, 400]}, "guidance_interval .999, 400."),
        ({"up_temperature": 0.0}, "up_temperature"),
    ],
)
def test_invalid_options_are_refused(options, said):
    with pytest.raises(RecipeError, match=said):
        GLIDEOptions(**options)


def test_guide_must_be_among_the_parts_and_fit(glide):
    for guide, part in (("clip", "noised_clip"), ("classifier", "classifier")):
        with pytest.raises(RecipeError, match=f"guidance {guide} needs a checkpoint as parts.{part}"):
            GLIDE.check(GLIDEOptions(guidance=guide), {"decoder": "x"})
        GLIDE.check(GLIDEOptions(guidance=guide), {part: glide.classifier})
        with pytest.raises(CheckpointError, match="no checkpoint 'gone'"):
            GLIDE.check(GLIDEOptions(guidance=guide), {part: "gone"})
    system = build(decoder=glide.decoder, noised_clip=glide.clip, classifier="gone")  # it need not be there
    assert system.checkpoints(GLIDEOptions()).keys() == {"decoder"}
    assert system.checkpoints(GLIDEOptions(guidance="clip")).keys() == {"decoder", "noised_clip"}
    GLIDE.check(GLIDEOptions(), {})
    decoder, upsampler = load_decoder(CPU, glide.decoder), load_decoder(CPU, glide.upsampler)
    with pytest.raises(RecipeError, match="holds a 'unet', and the guidance needs one of clip"):
        Guide(CPU, glide.decoder, ("clip",), decoder)
    with pytest.raises(RecipeError, match="reads images of 8 px, and the decoder generates 16 px"):
        Guide(CPU, glide.classifier, ("classifier",), upsampler)


def test_parts_that_do_not_fit_are_refused(glide):
    with pytest.raises(RecipeError, match=r"is an upsampler; name it as parts\.upsampler"):
        build(decoder=glide.upsampler)
    with pytest.raises(RecipeError, match=r"parts\.upsampler: .* does not upsample images of 8 px"):
        build(decoder=glide.decoder, upsampler=glide.decoder)
    with pytest.raises(CheckpointError, match="holds a 'classifier', where a 'unet' or a 'two-stage-unet' is needed"):
        build(decoder=glide.classifier)


def test_labels_without_guidance(glide):
    system = build(decoder=glide.label)
    drawn = system.generate(["a circle", "a star"], [[1], [1]], GLIDEOptions(steps="3", guidance_scale=1.0), 2)
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="guidance needs a decoder that is conditioned on text"):
        system.generate(["a circle"], [[1]], GLIDEOptions(steps="3"), 2)


def test_bf16_is_close_to_float32(glide, base):
    half = build(Device("cpu", torch.bfloat16), decoder=glide.decoder)
    options = GLIDEOptions(steps="3", guidance_scale=1.0)
    a, b = (system.generate(PROMPTS, [[1]] * 3, options, 3) for system in (base, half))
    assert 0 < (a - b).abs().mean() < 0.1


@pytest.mark.parametrize("guide", ["cfg", "clip"])
def test_offload_is_bit_identical(glide, whole, guide):
    parts = {"decoder": glide.decoder, "upsampler": glide.upsampler, "noised_clip": glide.noised_clip}
    options = GLIDEOptions(steps="2", up_steps="2", guidance=guide)
    offloaded = build(Device("cpu", torch.float32, offload=True), **parts)
    kept = [(value, value.data_ptr()) for value in offloaded.decoder.parameters()]
    with without_prepacking():  # which turns are
        one = whole.generate(["a red circle"], [[1]], options, 1)
    two = offloaded.generate(["a red circle"], [[1]], options, 1)
    assert torch.equal(one, two)
    assert all(value.data_ptr() == place for value, place in kept)


@packs
@pytest.mark.parametrize("guide", ["cfg", "clip"])
def test_prepacked_weights_give_the_same_images(whole, guide, request):
    options = GLIDEOptions(steps="3", up_steps="2", guidance=guide)
    expected = whole.generate(PROMPTS, SEEDS, options, 9)
    used = request.getfixturevalue("used")
    assert not used
    close(whole.generate(PROMPTS, SEEDS, options, 9), expected)
    assert {"Conv2d", "Linear"} <= {one.split()[0] for one in used}
    denoise = whole.decoder.denoiser(PROMPTS[:1])
    used.clear()
    assert denoise(torch.zeros(1, 3, 8, 8), torch.tensor([5])).x0.isfinite().all()
    assert not used  # they are given back
