import pytest
import torch

from dalle_cli.tasks.noising import add_noise, make_process

SEEDS = torch.arange(400) * 1000


def test_timestep_and_noise_are_per_sample():
    image = torch.zeros(400, 3, 4, 4)
    one = make_process("cosine", 50)
    x, t, eps = add_noise(one, image, SEEDS)
    assert (t.min(), t.max()) == (0, 49)
    assert 22 < t.float().mean() < 27
    assert (eps.mean().abs(), (eps.std() - 1).abs()) < (0.02, 0.02)
    torch.testing.assert_close(x, one.noise(image, t, eps))
    alone = add_noise(one, image[9:10], SEEDS[9:10])
    assert all(torch.equal(part[0], whole[9]) for part, whole in zip(alone, (x, t, eps)))
    assert abs(torch.corrcoef(torch.stack([t.float(), eps[:, 0, 0, 0]]))[0, 1]) < 0.2


def test_timestep_shift_favors_noisy_steps():
    one, image = make_process("linear", 1000), torch.zeros(400, 1, 1, 1)
    plain, shifted = (add_noise(one, image, SEEDS, shift)[1] for shift in (1.0, 3.0))
    share = (plain.float() + 0.5) / 1000
    torch.testing.assert_close(shifted / 1000, 3 * share / (1 + 2 * share), atol=2.5e-3, rtol=0)
    assert (shifted >= 750).float().mean() == pytest.approx(0.5, abs=0.08)  # the half of all is the middle of these
    assert add_noise(one, image, SEEDS, 1e9)[1].unique().tolist() == [999]


def test_tables_exist_on_meta_device():
    with torch.device("meta"):
        assert make_process("linear", 100, "v", "large").alpha_bar.device.type == "cpu"


def test_zero_steps_are_refused():
    with pytest.raises(ValueError, match=r"task\.steps: 0 is not between"):
        make_process("cosine", 0)
    with pytest.raises(ValueError, match="20 steps leave nothing of the data"):
        make_process("linear", 20)
