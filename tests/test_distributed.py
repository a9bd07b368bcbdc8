"""Two processes write the same files and lines as one, up to rounding of a few pixels."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli import distributed
from dalle_cli.exits import Failure

TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
PROMPTS = b"a red apple\na green chair\na blue dog\n"
LATENTS = ["--steps", "3", "--sheet", "out/sheet.png"]
INPUTS = ["0.png", "1.png", "2.png"]


def run_with_one_and_two(tmp_path, command, stdin=b""):
    """Return what a command prints and writes to out/, with one process and with two."""
    outcomes = []
    for mode, start in (("one", []), ("two", TORCHRUN)):
        folder = tmp_path / mode
        folder.mkdir()
        for number, name in enumerate(INPUTS):
            pixels = np.random.default_rng(number).integers(0, 256, (64, 64 + number, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name)
        words = [sys.executable, *start, "-m", "dalle_cli", *command]
        ended = subprocess.run(words, cwd=folder, input=stdin, capture_output=True, check=False)
        assert ended.returncode == 0, ended.stderr.decode()
        images = {str(path.relative_to(folder)): np.asarray(Image.open(path)) for path in folder.rglob("out/**/*.png")}
        outcomes.append((ended.stdout.decode(), images))
    return outcomes


def check_equal(one, two):
    (lines, images), (same_lines, same_images) = one, two
    assert len(lines.splitlines()) == len(same_lines.splitlines())
    for line, same in zip(lines.splitlines(), same_lines.splitlines()):
        for (key, value), other in zip(json.loads(line).items(), json.loads(same).values(), strict=True):
            assert value == (pytest.approx(other, abs=0.011) if isinstance(value, float) else other), key
    assert images.keys() == same_images.keys()
    for name, image in images.items():
        assert np.abs(image.astype(int) - same_images[name]).max() <= 1, name


@pytest.mark.parametrize("candidates", [["--rerank", "5", "--top", "2"], []])
def test_piped_prompts_give_the_same_images(tmp_path, candidates):
    command = ["sample", "-", *candidates, "--out", "out", "--sheet", "out/sheet.png", "--json"]
    one, two = run_with_one_and_two(tmp_path, command, PROMPTS)
    assert one[0] == two[0]
    assert len(one[1]) == (7 if candidates else 4)
    check_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["sample", "a dog", "--recipe", "glide", "-n", "3", "--out", "out", *LATENTS],
        ["rerank", *INPUTS, "--prompt", "a dog", "--top", "2"],
        ["reconstruct", *INPUTS, "--size", "64", "--out", "out", "--sheet", "out/sheet.png"],
        ["upscale", *INPUTS, "--out", "out"],
        ["inpaint", "0.png", "a pear", "a dog", "--box", "9,9,30,30", "-n", "2", "--out", "out", *LATENTS],
        ["vary", *INPUTS, "--eta", "0.7", "--out", "out", *LATENTS],
        ["interpolate", "0.png", "1.png", "--frames", "3", "--out", "out", *LATENTS],
        ["evaluate", "scenes", "-n", "5", "--rerank", "1,4", "--out", "out", "--json"],
    ],
    ids=lambda command: command[0],
)
def test_two_processes_give_the_same_files(tmp_path, command):
    check_equal(*run_with_one_and_two(tmp_path, command))


def test_distributed_map_keeps_the_order(monkeypatch):
    """This process is the second of three; the results of the others are given."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    worked = []
    monkeypatch.setattr(distributed, "all_gather_object", lambda value: [["a", "d"], value, ["c"]])
    assert distributed.distributed_map("abcd", lambda part: worked.append(part) or part) == ["a", "b", "c", "d"]
    assert worked == [["b"]]


def test_missing_master_address_is_explained(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(Failure, match="WORLD_SIZE=3 without MASTER_ADDR: start with torchrun, or unset WORLD_SIZE"):
        distributed.barrier()


GROUP = """
import os, sys
from dalle_cli import distributed
os.environ |= {{"WORLD_SIZE": "1", "RANK": "0"}}

class Group:
    def destroy_process_group(self):
        if {fails}:
            raise RuntimeError("connection closed")

distributed._groups.append(Group())
sys.stdout.write("results")
distributed.exit_process({code})
"""


@pytest.mark.parametrize(("code", "fails", "expected"), [(None, False, 0), (4, False, 4), (0, True, 1), (3, True, 3)])
def test_exit_in_a_group_keeps_output_and_code(code, fails, expected):
    program = [sys.executable, "-c", GROUP.format(code=code, fails=fails)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    ended = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert (ended.returncode, ended.stdout) == (expected, "results")


def test_exit_without_a_group():
    with pytest.raises(SystemExit) as ended:
        distributed.exit_process(4)
    assert ended.value.code == 4


def test_one_process_reduces_to_itself():
    assert distributed.all_reduce_max([1, -2.5]) == [1, -2.5]


def test_means_are_of_what_was_counted():
    totals = {"loss": torch.tensor(3.0), "psnr": torch.tensor([2.0])}
    assert distributed.all_reduce_mean(totals, 2) == {"loss": 1.5, "psnr": 1.0}
    assert distributed.all_reduce_mean({}, 2) == {}
