import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.exits import USAGE, Failure
from dalle_cli.recipe import to_yaml
from dalle_cli.registry import RecipeError
from dalle_cli.training import start


@pytest.fixture
def mine(tmp_path, monkeypatch, recipe):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(to_yaml(recipe()))
    return "mine.yaml"


def train(name, *overrides, run=None, processes=1, dry_run=False):
    return start.train(
        "dvae", name, overrides, run, resume="auto", processes=processes, max_time=None, dry_run=dry_run, quiet=True
    )


def test_a_dry_run_says_what_it_comes_to_and_writes_nothing(mine, tmp_path, capsys):
    assert train(mine, "train.steps=5", dry_run=True) == 0
    shown = capsys.readouterr()
    assert "steps: 5" in shown.out
    assert "5 steps of 8 samples = 40 samples" in shown.err
    assert "M parameters" in shown.err
    assert re.search(r"memory in every process: \d+ MiB \(program 400 MiB, .*step \d+ MiB\)", shown.err)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_dry_run_needs_no_companion_and_says_what_stands_in_for_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["tokenizer.path=none.json", "frozen.dvae=none"]
    start.train(
        "prior", "dalle1-tiny", words, None, resume="auto", processes=2, max_time=None, dry_run=True, quiet=False
    )
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[2].split(":")[0].strip() for line in said if line.startswith("not found")] == [
        "frozen.dvae",
    ]
    learned = "substituted for what is not found: a vocabulary of 600 entries, which the run learns"
    assert any(line.startswith(learned) for line in said)
    assert "buckets 4 MiB" in said[-1]
    with pytest.raises(RecipeError, match="64 does not divide among 3 processes"):
        start.train(
            "prior", "dalle1-tiny", words, None, resume="auto", processes=3, max_time=None, dry_run=True, quiet=False
        )


def test_a_run_is_called_after_its_recipe_unless_it_has_a_name(mine, tmp_path):
    assert train(mine, "train.steps=1", "train.preview_images=0") == 0
    assert train(mine, "train.steps=1", "train.preview_images=0", run="other") == 0
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["dvae-mine", "other"]


def test_processes_of_another_launcher_must_agree(mine, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(Failure, match="another launcher has started 4 processes") as caught:
        train(mine, processes=2)
    assert caught.value.code == USAGE


def test_processes_start_the_same_command(mine, monkeypatch):
    started = []
    monkeypatch.setattr("dalle_cli.launch.launch", lambda count, command: started.append((count, command[1:])) or 75)
    monkeypatch.setattr("sys.argv", ["dalle", "train-dvae", "--processes", "2"])
    assert train(mine, processes=2) == 75
    assert started == [(2, ["-m", "dalle_cli", "train-dvae", "--processes", "2"])]


@pytest.mark.timeout(180)
def test_two_processes_train_like_one(tmp_path, recipe):
    """The same samples in every step, nearly the same weights; and a signal stops both gracefully."""
    made = recipe(train={"steps": 6, "save_every": "1h", "preview_every": 0})
    (tmp_path / "mine.yaml").write_text(to_yaml(made))
    command = [sys.executable, "-m", "dalle_cli", "train-dvae", "--recipe", "mine.yaml", "--run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    one = subprocess.run([*command, "one"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert one.returncode == 0, one.stderr
    two = subprocess.run(
        [*command, "two", "--processes", "2"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert two.returncode == 0, two.stderr
    assert "2 processes on cpu" in two.stderr
    weights = [checkpoint.read_tensors(tmp_path / "checkpoints" / name / checkpoint.FILE) for name in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0.01, atol=1e-3)
    logs = [
        [json.loads(line) for line in (tmp_path / "checkpoints" / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for a, b in zip(*logs):
        assert a.get("samples") == b.get("samples")
        if "loss" in a:
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)

    long = [*command, "long", "--processes", "2", "train.steps=100000", "train.validate_every=0"]
    child = subprocess.Popen(long, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    for line in child.stderr:
        if "steps =" in line:
            break
    time.sleep(3)
    child.send_signal(signal.SIGTERM)
    words = child.communicate(timeout=30)[1]
    assert child.returncode == 75, words
    assert "state saved" in words
