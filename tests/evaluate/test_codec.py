import numpy as np
import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.evaluate import codec, unseen_scenes
from tests.fixtures.miniatures import CODES, SIZE


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(codec, "fast_bf16", lambda: False)


@pytest.mark.parametrize("count", [5, 70])  # 64 at a time
def test_figures_are_those_of_a_plain_computation(tiny, count):
    dvae = checkpoint.load(tiny.dvae).model
    errors, used = [], set()
    for _, _, picture in unseen_scenes.scenes(count, SIZE, "shapes"):
        with torch.no_grad():
            codes = dvae.encode(unseen_scenes.batch([picture]))
            redrawn = (dvae.decode(codes)[0].permute(1, 2, 0).numpy() + 1) / 2
        errors.append(np.mean((picture / 255 - redrawn) ** 2))
        used |= set(codes.flatten().tolist())
    report = codec.evaluate(tiny.dvae, count, "shapes")
    assert (report.pictures, report.size) == (count, SIZE)
    assert report.psnr == pytest.approx(np.mean(-10 * np.log10(errors)), abs=1e-3)
    assert report.of_all == pytest.approx(-10 * np.log10(np.mean(errors)), abs=1e-3)
    assert report.psnr > report.of_all
    assert report.used == len(used) / CODES
    assert 0 < report.used <= 1


def test_another_size_than_the_trained_one(tiny):
    report = codec.evaluate(tiny.dvae, 3, "shapes", 32)
    assert report.size == 32
    assert report.psnr != codec.evaluate(tiny.dvae, 3, "shapes").psnr


def test_another_kind_of_checkpoint_is_refused(tiny):
    with pytest.raises(checkpoint.CheckpointError, match="holds a 'clip', where a 'dvae' or a 'vqgan' is needed"):
        codec.evaluate(tiny.clip, 3, "shapes")
