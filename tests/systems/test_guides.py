import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.systems.diffusion import load_decoder
from dalle_cli.systems.guides import Guide, toward_class, toward_clip
from tests.fixtures.miniatures import CPU

TEXTS = ["a red circle", "a star"]


@pytest.mark.parametrize(
    ("part", "kinds", "of"),
    [("noised_clip", ("noised-clip", "clip"), toward_clip), ("classifier", ("classifier",), toward_class)],
)
def test_gradient_increases_the_score(glide, part, kinds, of):
    guide = Guide(CPU, getattr(glide, part), kinds, load_decoder(CPU, glide.decoder))
    more = () if of is toward_class else (lambda x, t: None,)
    x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([100, 900])
    step = of(guide, TEXTS, *more, 1.0)(x, t)
    torch.testing.assert_close(of(guide, TEXTS, *more, 3.0)(x, t), 3 * step)
    texts = TEXTS if of is toward_class else guide.task.embed_texts(TEXTS)

    def score(x):
        return guide.task.score(texts, x, t).detach()

    size = step.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert (score(x + 0.05 * step / size) > score(x - 0.05 * step / size)).all()
    alone = of(guide, TEXTS[1:], *more, 1.0)(x[1:], t[1:])
    torch.testing.assert_close(alone, step[1:], rtol=1e-3, atol=1e-5)


def test_guide_with_another_noise_schedule(glide, tmp_path):
    path = checkpoint.resolve(glide.classifier)
    recipe = checkpoint.metadata(path)["recipe"]
    recipe["task"]["schedule"] = "linear"
    checkpoint.save(tmp_path / "other.safetensors", checkpoint.read_tensors(path), recipe)
    decoder = load_decoder(CPU, glide.decoder)
    same = Guide(CPU, glide.classifier, ("classifier",), decoder)
    other = Guide(CPU, str(tmp_path / "other.safetensors"), ("classifier",), decoder)
    x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([200, 700])
    own = other.timesteps[t]
    assert (own != t).all()
    levels = other.task.process.alpha_bar[own], decoder.process.alpha_bar[t]
    torch.testing.assert_close(*levels, rtol=0.02, atol=0)
    for guide, steps in ((same, t), (other, own)):
        assert torch.equal(guide.score(TEXTS, x, t), guide.task.score(TEXTS, x, steps))
