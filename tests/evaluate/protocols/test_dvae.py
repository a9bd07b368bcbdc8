import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli import checkpoint, evaluate
from dalle_cli.evaluate import samples
from tests.fixtures.miniatures import CODES, SIZE


def reconstruct(model, count):
    return evaluate.dvae(model, num_images=count, objects="shapes", precision="float32")


@pytest.mark.parametrize("count", [5, 70])  # 64 per batch
def test_figures_equal_a_plain_computation(tiny, count):
    tokenizer = checkpoint.load(tiny.dvae).model
    errors, used = [], set()
    for sample in samples.unseen(count, SIZE, "shapes"):
        with torch.no_grad():
            tokens = tokenizer.encode(samples.batch([sample.image]))
            reconstructed = (tokenizer.decode(tokens)[0].permute(1, 2, 0).numpy() + 1) / 2
        errors.append(np.mean((sample.image / 255 - reconstructed) ** 2))
        used |= set(tokens.flatten().tolist())
    result = reconstruct(tiny.dvae, count)
    assert (result.num_images, result.size) == (count, SIZE)
    assert result.psnr == pytest.approx(np.mean(-10 * np.log10(errors)), abs=1e-3)
    assert result.psnr_of_mean_mse == pytest.approx(-10 * np.log10(np.mean(errors)), abs=1e-3)
    assert result.psnr > result.psnr_of_mean_mse
    assert result.codebook_usage == len(used) / CODES
    assert 0 < result.codebook_usage <= 1


def test_size_can_differ_from_training(tiny):
    larger = evaluate.dvae(tiny.dvae, num_images=3, objects="shapes", size=32)
    assert larger.size == 32
    assert larger.psnr != reconstruct(tiny.dvae, 3).psnr


def test_own_images_replace_scenes(tiny, tmp_path):
    for number, color in enumerate(("red", "blue", "green")):
        Image.new("RGB", (40, 20), color).save(tmp_path / f"{number}.png")  # without captions
    result = evaluate.dvae(tiny.dvae, data={"type": "folder", "path": str(tmp_path)}, num_images=10)
    assert result.num_images == 3
    assert result.psnr != reconstruct(tiny.dvae, 3).psnr


def test_precision_of_the_device_is_used(tiny):
    rounded = evaluate.dvae(tiny.dvae, num_images=5, objects="shapes", precision="bf16")
    assert rounded.psnr != reconstruct(tiny.dvae, 5).psnr
    assert rounded.psnr == pytest.approx(reconstruct(tiny.dvae, 5).psnr, abs=0.5)


def test_other_model_types_are_refused(tiny):
    with pytest.raises(checkpoint.CheckpointError, match="holds a 'clip', where a 'dvae' or a 'vqgan' is needed"):
        reconstruct(tiny.clip, 3)


def test_command_prints_the_figures(dalle, tiny):
    command = ("evaluate", "dvae", "--model", tiny.dvae, "-n", "5", "--objects", "shapes")
    expected = evaluate.dvae(tiny.dvae, num_images=5, objects="shapes")
    line = dalle(*command).result
    assert line == {"title": "evaluate dvae", **expected.to_json()[0]}
    shown = dalle(*command, terminal=True).out
    assert f"PSNR {expected.psnr:.2f} dB" in shown
    assert f"codebook usage {expected.codebook_usage:.1%}" in shown
