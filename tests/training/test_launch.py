import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.exits import Failure
from dalle_cli.recipe import to_yaml
from dalle_cli.training.launch import launch

# A program that says its place and ends as its rank's word tells it to.
PROGRAM = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
act = sys.argv[1].split(",")[rank]
if act == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    time.sleep(60)
print(os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"], act, file=sys.stderr)
if act == "die":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(act))
"""


def run(acts):
    return launch(len(acts.split(",")), [sys.executable, "-c", PROGRAM, acts])


@pytest.mark.parametrize(("acts", "code"), [("0,0", 0), ("75,75", 75), ("0,0,3", 3), ("2,0", 2)])
def test_the_exit_code_is_that_of_all_or_of_the_first_that_failed(acts, code):
    assert run(acts) == code


def test_what_a_failed_process_said_is_shown_with_its_rank(capsys):
    assert run("0,4") == 4
    assert capsys.readouterr().err == "rank 1: 2 1 4\n"


def test_when_one_dies_the_others_do_not_hang(capsys, monkeypatch):
    monkeypatch.setattr("dalle_cli.training.launch.GRACE", 0.5)
    began = time.monotonic()
    assert run("wait,die") == 137
    assert time.monotonic() - began < 20
    assert "rank 1: ended by SIGKILL" in capsys.readouterr().err


def test_a_signal_is_passed_on_to_all():
    program = (
        "import sys, threading, os, signal, torch\nfrom dalle_cli.training.launch import launch\n"
        "threading.Timer(3, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()\n"
        f"sys.exit(launch(2, [sys.executable, '-c', {PROGRAM!r}, 'wait,wait']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 75, done.stderr


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(Failure, match="--processes 2: this machine has 1 GPUs"):
        run("0,0")


@pytest.mark.timeout(180)
def test_two_processes_train_like_one(tmp_path, recipe):
    """The same samples in every step, nearly the same weights; and a signal stops both in good order."""
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
