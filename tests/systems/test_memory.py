import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.generate import sample as sampling
from dalle_cli.generate.sample import SampleOptions
from dalle_cli.hardware.memory_meter import MemoryMeter
from dalle_cli.systems import dalle1, memory, systems
from dalle_cli.systems.dalle1 import DALLE1Options
from dalle_cli.systems.loading import system_recipe
from dalle_cli.systems.scorer import Scorer
from dalle_cli.text.learn import learn
from tests.fixtures.miniatures import CAPTIONS, CPU, packs, recipes

MOST = 128


@pytest.fixture
def system(tiny):
    return systems.build({"type": "dalle1"}, "system", device=CPU, transformer=tiny.dalle)


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize(("prompts", "candidates"), [(1, 16), (5, 3)])
def test_memory_needs_match_generation(system, prompts, candidates, scale):
    needs = system.memory_needs(DALLE1Options(guidance_scale=scale))
    with MemoryMeter() as meter:
        system.task.sample(["zebra"] * prompts, [range(candidates)] * prompts, guidance_scale=scale)
    assert meter.peak["all"] == pytest.approx(needs.generating(prompts, candidates), rel=0.1)


def test_small_batches_ignore_free_memory(system, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda name: 0)
    assert memory.plan_batch(system, DALLE1Options(), prompts=2, candidates=4) == (2, MOST)
    assert memory.plan_batch(system, DALLE1Options(), prompts=3, candidates=4) == (1, 1)
    monkeypatch.setattr(memory, "free_memory", lambda name: 1 << 40)
    assert memory.plan_batch(system, DALLE1Options(), prompts=3, candidates=4) == (3, 4)


def test_decoding_fits_the_memory(system, monkeypatch):
    codes = torch.arange(12 * 16).view(12, 4, 4) % 32
    expected = system._decode(codes)
    sizes = []
    decode = system.task.dvae.decode
    monkeypatch.setattr(system.task.dvae, "decode", lambda part: sizes.append(len(part)) or decode(part))
    monkeypatch.setattr(dalle1, "free_memory", lambda name: 0)
    system._decode_batch = None
    torch.testing.assert_close(system._decode(codes), expected)
    assert sizes == [2, 3, *[1] * 12]  # tried with two and three
    sizes.clear()
    system._decode(codes[:2])
    assert sizes == [1, 1]


@pytest.fixture
def large(tmp_path):
    """A system of untrained networks that holds some hundred MiB while it draws 64 candidates."""
    paths = {kind: tmp_path / f"{kind}.safetensors" for kind in ("dvae", "clip", "dalle")}
    made = recipes(paths["dvae"])
    made["dvae"]["model"] |= {"n_hid": 32}
    made["dalle"]["model"] |= {"width": 512, "depth": 2, "heads": 8, "grid_size": 16, "attention": "full"}
    for kind, recipe in made.items():
        vocabulary = None if kind == "dvae" else learn(CAPTIONS, 522 if kind == "clip" else 520, kind)
        task = checkpoint.compose(recipe, vocabulary)
        checkpoint.save(paths[kind], task.model.state_dict(), recipe, vocabulary)  # type: ignore[union-attr]
    found = tmp_path / "large.yaml"
    found.write_text(f"system: {{type: dalle1}}\nparts: {{transformer: {paths['dalle']}, reranker: {paths['clip']}}}\n")
    return found


def estimated(found, candidates, asked=None):
    recipe = system_recipe(str(found))
    shapes, parts = replace(CPU, shapes_only=True), dict(recipe["parts"])
    scorer = Scorer(shapes, parts.pop("reranker"))
    system = systems.build(recipe["system"], "system", device=shapes, **parts)
    return memory.estimate(system, scorer, DALLE1Options(), 1, candidates, asked)


def test_estimate_reads_no_weights_and_adds_up(large, monkeypatch):
    monkeypatch.setattr(checkpoint, "read_tensors", lambda path: pytest.fail("weights were read"))
    few, many = (estimated(large, 64, asked) for asked in (2, 64))
    blocks = 4 * 2 * 12 * 512**2  # bytes of the transformer's weights, nearly all
    assert many["weights"] == few["weights"] > blocks
    packed = blocks if torch.backends.mkldnn.is_available() else 0
    assert many["generating"] - packed > 10 * (few["generating"] - packed) > 0
    assert many["total"] == many["program"] + many["weights"] + many["images"] + max(
        many[name] for name in ("generating", "decoding", "scoring")
    )


@packs
def test_estimate_includes_prepacked_weights(large, used):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dalle_cli.nn.prepacked.MEMORY_FRACTION", 0)
        plain = estimated(large, 64)
    found = estimated(large, 64)
    scorer = Scorer(CPU, system_recipe(str(large))["parts"]["reranker"])
    assert found["scoring"] - plain["scoring"] == scorer.prepacked_bytes() > 0


RUN = """
import re, sys
from dataclasses import replace
from pathlib import Path
from dalle_cli.systems.scorer import Scorer
from dalle_cli.generate.sample import SampleOptions, sample
sample(["zebra"], SampleOptions(recipe="large.yaml", rerank=96, precision="float32", quiet=True))
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.slow
def test_estimate_matches_a_real_run(large):
    found = estimated(large, 96)
    assert found["generating"] > 0.3 * found["total"]
    ended = subprocess.run([sys.executable, "-c", RUN], cwd=large.parent, capture_output=True, text=True, check=True)
    assert int(ended.stdout.splitlines()[-1]) == pytest.approx(found["total"], rel=0.2)


def test_dry_run_prints_the_estimate(large, capsys, monkeypatch):
    assert (
        sampling.sample(["zebra"], SampleOptions(recipe=str(large), rerank=64, precision="float32", dry_run=True)) == 0
    )
    assert re.search(
        r"memory: [\d.]+ [GM]iB \(program 400 MiB, weights \d+ MiB, .*generating ", capsys.readouterr().err
    )
