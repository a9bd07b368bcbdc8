import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from dalle_cli import checkpoint, images
from dalle_cli.models.dalle import DALLE
from dalle_cli.models.dvae import DVAE
from dalle_cli.registry import RecipeError
from dalle_cli.systems import systems
from dalle_cli.systems.dalle1 import DALLE1Options
from dalle_cli.tasks.dalle import DALLETask
from dalle_cli.text.learn import learn
from tests.fixtures.miniatures import CAPTIONS, CPU, GRID, SIZE, noise, spread

PROMPTS = ["a red circle", "a blue square", "zebra"]
SEEDS = [[1000 * p + i for i in range(5)] for p in range(3)]


@pytest.fixture
def system(tiny):
    return systems.build({"type": "dalle1"}, "system", device=CPU, transformer=tiny.dalle)


def close(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_images_are_decoded_tokens(system):
    drawn = system.generate(PROMPTS, SEEDS, DALLE1Options(), batch_size=8)
    assert drawn.shape == (3, 5, 3, SIZE, SIZE)
    assert drawn.min() >= -1
    assert drawn.max() <= 1
    codes = system.task.sample(PROMPTS, SEEDS)
    assert codes.unique().numel() > 20
    with torch.no_grad():
        close(drawn, system.task.dvae.decode(codes.flatten(0, 1)).unflatten(0, (3, 5)))


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_image_does_not_depend_on_the_batch(system, scale):
    options = DALLE1Options(guidance_scale=scale)
    drawn = system.generate(PROMPTS, SEEDS, options, batch_size=5)
    assert len(drawn.flatten(0, 1).flatten(1).unique(dim=0)) == 15
    for batch in (1, 2, 128):
        close(system.generate(PROMPTS, SEEDS, options, batch), drawn)
    for p, prompt in enumerate(PROMPTS):
        close(system.generate([prompt], [SEEDS[p][::-1]], options, batch_size=3)[0], drawn[p].flip(0))


class Products(TorchDispatchMode):
    """Collects how many numbers each matrix product multiplies."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.bmm.default, torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.sizes.append(args[-2].numel() * args[-1].shape[-1])
        return func(*args, **(kwargs or {}))


def test_image_does_not_depend_on_the_batch_in_bf16():
    """oneDNN leaves products of 4096 numbers or fewer to kernels that round otherwise, once in 30,000 or so."""
    torch.manual_seed(0)
    words = learn(CAPTIONS, 520, "dalle")
    model = DALLE(
        vocab_size=words.vocab_size, context_length=20, image_vocab_size=64, grid_size=6, width=192, depth=2, heads=4
    )
    model.load_state_dict(spread(model, 6.0))
    task = DALLETask(model, DVAE(vocab_size=64, n_hid=4, n_init=4, groups=1, num_res_blocks=1), words)
    model.to(torch.bfloat16)
    codes = task.sample(PROMPTS[:2], [SEEDS[0], SEEDS[1]])
    assert codes.unique().numel() > 30
    for count in (1, 2):
        with Products() as products:
            assert torch.equal(task.sample(PROMPTS[:1], [SEEDS[0][:count]]), codes[:1, :count])
        assert len(products.sizes) > 400
        assert min(products.sizes) > 4096


def test_prompt_seed_and_options_matter(system):
    def drawn(prompt="a red circle", seed=1, **options):
        return system.generate([prompt], [[seed]], DALLE1Options(**options), batch_size=1)

    assert torch.equal(drawn(), drawn())
    for other in (drawn("a blue square"), drawn(seed=2), drawn(top_k=2), drawn(top_p=0.2), drawn(temperature=0.1)):
        assert not torch.equal(drawn(), other)
    assert torch.equal(drawn(temperature=0.0), drawn(seed=2, temperature=0.0))
    assert torch.equal(drawn(temperature=0.0), drawn(top_k=1))


def test_finished_images_are_counted(system):
    counts = []
    system.generate(PROMPTS, SEEDS, DALLE1Options(), batch_size=2, on_images=counts.append)
    assert counts == [6, 6, 3]


def test_image_prefix_is_kept(system, tmp_path):
    noise(1).save(tmp_path / "half.png")
    codes = system.task.encode(images.to_tensor(noise(1))[None])[0]
    for rows in (1, 3):
        first = system.encode_image_prefix(tmp_path / "half.png", rows)
        assert torch.equal(first, codes[:rows].flatten())
        drawn = system.task.sample(PROMPTS, SEEDS, prefix=first)
        assert (drawn[:, :, :rows] == codes[:rows]).all()
        assert len(drawn[:, :, rows:].flatten(0, 1).flatten(1).unique(dim=0)) == 15
        with torch.no_grad():
            expected = system.task.dvae.decode(drawn.flatten(0, 1)).unflatten(0, (3, 5))
        close(system.generate(PROMPTS, SEEDS, DALLE1Options(), batch_size=2, image_prefix=first), expected)


def test_image_prefix_is_resized(system, tmp_path):
    picture = Image.new("RGB", (200, 160), "blue")
    picture.paste("red", (80, 60, 120, 100))  # what a crop without resizing would see alone
    picture.save(tmp_path / "large.png")
    small = images.center_crop(picture.resize((20, 16), Image.Resampling.BICUBIC), 16)
    expected = system.task.encode(images.to_tensor(small)[None])[0, :3].flatten()
    red = system.task.encode(images.to_tensor(Image.new("RGB", (16, 16), "red"))[None])[0, :3].flatten()
    assert not torch.equal(expected, red)
    assert torch.equal(system.encode_image_prefix(tmp_path / "large.png", 3), expected)


@pytest.mark.parametrize("rows", [0, GRID, 99])
def test_rows_to_keep_leave_some_to_generate(system, tmp_path, rows):
    with pytest.raises(RecipeError, match=f"--keep-rows {rows}: the image has {GRID} rows"):
        system.encode_image_prefix(tmp_path / "unread.png", rows)


@pytest.mark.parametrize(
    ("option", "value"),
    [("temperature", -1.0), ("temperature", float("nan")), ("top_k", 0), ("top_p", 0.0), ("top_p", 1.5)],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(RecipeError, match=option.replace("_", "-")):
        DALLE1Options(**{option: value})


def test_dvae_can_be_replaced(system, tiny, tmp_path):
    torch.manual_seed(1)
    found = checkpoint.metadata(checkpoint.resolve(tiny.dvae))
    checkpoint.save(
        tmp_path / "other.safetensors", checkpoint.compose(found["recipe"]).model.state_dict(), found["recipe"]
    )
    other = systems.build(
        {"type": "dalle1"}, "system", device=CPU, transformer=tiny.dalle, dvae=str(tmp_path / "other.safetensors")
    )
    assert torch.equal(other.task.sample(PROMPTS, SEEDS), system.task.sample(PROMPTS, SEEDS))
    one, two = (s.generate(PROMPTS, SEEDS, DALLE1Options(), batch_size=8) for s in (system, other))
    assert (one - two).abs().max() > 0.01
    with pytest.raises(checkpoint.CheckpointError, match=r"frozen\.dvae: a CLIP, where task 'dalle' needs a DVAE"):
        systems.build({"type": "dalle1"}, "system", device=CPU, transformer=tiny.dalle, dvae=tiny.clip)
