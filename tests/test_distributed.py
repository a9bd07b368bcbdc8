"""Drawing by two processes: the files and lines of one, but for what rounding does to a few pixels."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dalle_cli import distributed
from dalle_cli.exits import Failure

TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
PROMPTS = b"a red apple\na green chair\na blue dog\n"
LATENTS = ["--steps", "3", "--sheet", "out/sheet.png"]
GIVEN = ["0.png", "1.png", "2.png"]


def both(tmp_path, command, stdin=b""):
    """What a command prints and writes to out/, with one process and with two."""
    found = []
    for name, start in (("one", []), ("two", TORCHRUN)):
        folder = tmp_path / name
        folder.mkdir()
        for number, picture in enumerate(GIVEN):
            pixels = np.random.default_rng(number).integers(0, 256, (64, 64 + number, 3), np.uint8)
            Image.fromarray(pixels).save(folder / picture)
        words = [sys.executable, *start, "-m", "dalle_cli", *command]
        ended = subprocess.run(words, cwd=folder, input=stdin, capture_output=True, check=False)
        assert ended.returncode == 0, ended.stderr.decode()
        pictures = {
            str(path.relative_to(folder)): np.asarray(Image.open(path)) for path in folder.rglob("out/**/*.png")
        }
        found.append((ended.stdout.decode(), pictures))
    return found


def check(one, two):
    (lines, pictures), (same_lines, same_pictures) = one, two
    assert len(lines.splitlines()) == len(same_lines.splitlines())
    for line, same in zip(lines.splitlines(), same_lines.splitlines()):
        for (key, value), other in zip(json.loads(line).items(), json.loads(same).values(), strict=True):
            assert value == (pytest.approx(other, abs=0.011) if isinstance(value, float) else other), key
    assert pictures.keys() == same_pictures.keys()
    for name, picture in pictures.items():
        assert np.abs(picture.astype(int) - same_pictures[name]).max() <= 1, name


@pytest.mark.parametrize("candidates", [["--rerank", "5", "--top", "2"], []])
def test_prompts_of_a_pipe_are_drawn_as_by_one(tmp_path, candidates):
    command = ["sample", "-", *candidates, "--out", "out", "--sheet", "out/sheet.png", "--json"]
    one, two = both(tmp_path, command, PROMPTS)
    assert one[0] == two[0]
    assert len(one[1]) == (7 if candidates else 4)
    check(one, two)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["sample", "a dog", "--recipe", "glide", "-n", "3", "--out", "out", *LATENTS],
        ["rerank", *GIVEN, "--prompt", "a dog", "--top", "2"],
        ["reconstruct", *GIVEN, "--size", "64", "--out", "out", "--sheet", "out/sheet.png"],
        ["upscale", *GIVEN, "--out", "out"],
        ["inpaint", "0.png", "a pear", "a dog", "--box", "9,9,30,30", "-n", "2", "--out", "out", *LATENTS],
        ["vary", *GIVEN, "--eta", "0.7", "--out", "out", *LATENTS],
        ["interpolate", "0.png", "1.png", "--frames", "3", "--out", "out", *LATENTS],
        ["evaluate", "scenes", "-n", "5", "--best-of", "1,4", "--out", "out", "--json"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_draws_or_scores_is_as_by_one(tmp_path, command):
    check(*both(tmp_path, command))


def test_results_come_in_the_order_of_the_items(monkeypatch):
    """The second of three processes, of which the others give what they would have found."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    worked = []
    monkeypatch.setattr(distributed, "exchange", lambda value: [["a", "d"], value, ["c"]])
    assert distributed.shared("abcd", lambda own: worked.append(own) or own) == ["a", "b", "c", "d"]
    assert worked == [["b"]]


def test_processes_that_do_not_know_of_each_other_are_told_how_to_start(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(Failure, match="WORLD_SIZE=3 without MASTER_ADDR: start with torchrun, or unset WORLD_SIZE"):
        distributed.meet()


GROUP = """
import os, sys
from dalle_cli import processes
os.environ |= {{"WORLD_SIZE": "1", "RANK": "0"}}

class Group:
    def destroy_process_group(self):
        if {fails}:
            raise RuntimeError("nobody there")

distributed._groups.append(Group())
sys.stdout.write("results")
distributed.end({code})
"""


@pytest.mark.parametrize(("code", "fails", "expected"), [(None, False, 0), (4, False, 4), (0, True, 1), (3, True, 3)])
def test_the_end_of_one_that_worked_with_others(code, fails, expected):
    """At once, with all that it printed and its exit code."""
    program = [sys.executable, "-c", GROUP.format(code=code, fails=fails)]
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    ended = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60, env=buffered)
    assert (ended.returncode, ended.stdout) == (expected, "results")


def test_the_end_of_one_alone():
    with pytest.raises(SystemExit) as ended:
        distributed.end(4)
    assert ended.value.code == 4
