"""Models of Karlo's size on a small machine: `make check-large`."""

import gc
import json
import os
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from dalle_cli.convert.networks.karlo import LOW_RES
from dalle_cli.convert.recognition import export_state
from dalle_cli.models import models
from dalle_cli.text.bpe import base_symbols
from tests.parity.peers import fill, unfilled

pytestmark = [pytest.mark.large, pytest.mark.timeout(3600)]
GIB = 1 << 30
DISK, MEMORY = 40 * GIB, 14 * GIB  # that must be free
UNET = {"type": "unet", "base_channels": 320, "num_res_blocks": 3, "channel_mult": [1, 2, 3, 4], "head_dim": 64}
HALF = UNET | {
    **{"attention_factors": [], "middle_attention": False, "scale_shift": False, "learned_variance": False},
    "conditions": {"low_res": LOW_RES},
}
CLIP = {
    **{"type": "clip", "embed_dim": 768},
    "image": {"type": "vit", "size": 224, "patch_size": 14, "width": 1024, "depth": 24, "heads": 16},
    "text": {"type": "clip-text", "vocab_size": 49408, "context_length": 77, "width": 768, "depth": 12, "heads": 12},
}
PRIOR = {
    **{
        "type": "diffusion-prior",
        "embed_dim": 768,
        "context_length": 77,
        "text_width": 768,
        "width": 2048,
        "depth": 20,
    },
    "heads": 32,
}
DECODER = UNET | {
    "attention_factors": [2, 4, 8],
    "conditions": {
        "clip": {"type": "clip-condition", "embed_dim": 768, "tokens": 4, "width": 1536},
        "text": {"type": "clip-text-condition", "embed_dim": 768, "text_width": 768, "width": 1536},
    },
}
PUBLISHED = {
    "ViT-L-14.pt": ("openai-clip", CLIP, 427_616_513),
    "prior-ckpt-step=01000000-of-01000000.ckpt": ("karlo-prior", PRIOR, 1_022_028_544),
    "decoder-ckpt-step=01000000-of-01000000.ckpt": ("karlo-decoder", DECODER, 893_318_086),
    "improved-sr-ckpt-step=1.2M.ckpt": (
        "karlo-upsampler",
        {"type": "two-stage-unet", "first": HALF, "last": HALF},
        2 * 691_579_523,
    ),
}


@pytest.fixture
def folder(tmp_path):
    """Random weights in the published files, removed afterwards."""
    if shutil.disk_usage(tmp_path).free < DISK:
        pytest.skip(f"less than {DISK // GIB} GiB of disk are free")
    if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < MEMORY:
        pytest.skip(f"less than {MEMORY // GIB} GiB of memory are free")
    (tmp_path / "karlo").mkdir()
    for name, (layout, node, parameters) in PUBLISHED.items():
        with unfilled():
            network = models.build(node)
        state = export_state(layout, node, fill(network).state_dict())
        statistics = [state.pop(key) for key in ("clip_mean", "clip_std") if key in state]
        assert sum(tensor.numel() for tensor in state.values()) == parameters
        torch.save({"state_dict": state} if name.endswith(".ckpt") else state, tmp_path / "karlo" / name)
        if statistics:
            torch.save(tuple(statistics), tmp_path / "karlo" / "ViT-L-14_stats.th")
        del network, state
        gc.collect()
    symbols = base_symbols("</w>")
    merges = [f"{left} {right}" for left in symbols[:256] for right in symbols][:48894]  # as many as were published
    (tmp_path / "karlo" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    yield tmp_path
    for path in tmp_path.iterdir():
        shutil.rmtree(path, ignore_errors=True)


def dalle(folder, *words):
    """What the command prints; the largest memory of any command so far, in bytes."""
    run = subprocess.run(
        [sys.executable, "-m", "dalle_cli", *words], cwd=folder, stdout=subprocess.PIPE, text=True, check=False
    )
    assert run.returncode == 0
    return run.stdout, 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def test_karlo_is_imported_and_draws_a_picture(folder):
    largest = max(path.stat().st_size for path in (folder / "karlo").iterdir())
    _, peak = dalle(folder, "import", "karlo", "--system", "--out", "system")
    print(f"import: {peak / GIB:.1f} GiB at most, of files of up to {largest / GIB:.1f}")
    assert peak < 1.3 * largest + GIB / 2  # and what the program itself is
    shutil.rmtree(folder / "karlo")

    few = "extends: system.yaml\nsample: {prior_steps: 2, steps: 1, up_steps: 2}\n"
    (folder / "system" / "few.yaml").write_text(few)
    words = ("sample", "a red circle", "--recipe", "system/few.yaml", "--offload", "--json")
    printed, peak = dalle(folder, *words)
    print(f"sample: {peak / GIB:.1f} GiB at most")
    (result,) = map(json.loads, printed.splitlines())
    picture = Image.open(folder / result["path"])
    assert picture.size == (256, 256)
    assert len(picture.convert("L").getcolors()) > 20
    assert peak < 24 * GIB
