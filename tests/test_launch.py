import subprocess
import sys
import time

import pytest
import torch

from dalle_cli.exits import Failure
from dalle_cli.launch import launch, relaunch

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
def test_exit_code_is_shared_or_that_of_the_first_failure(acts, code):
    assert run(acts) == code


def test_messages_of_failed_ranks_are_shown(capsys):
    assert run("0,4") == 4
    assert capsys.readouterr().err == "rank 1: 2 1 4\n"


def test_others_stop_when_one_dies(capsys, monkeypatch):
    monkeypatch.setattr("dalle_cli.launch.GRACE", 0.5)
    began = time.monotonic()
    assert run("wait,die") == 137
    assert time.monotonic() - began < 20
    assert "rank 1: ended by SIGKILL" in capsys.readouterr().err


def test_signals_are_passed_on():
    program = (
        "import sys, threading, os, signal, torch\nfrom dalle_cli.launch import launch\n"
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


def test_equal_failures_are_said_once(capfd):
    assert run("73,73") == 73
    assert capfd.readouterr().err == "2 0 73\n"  # rank 0 writes to the terminal itself


def test_processes_of_another_launcher_must_agree(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert relaunch(1) is None
    assert relaunch(4) is None
    with pytest.raises(Failure, match="another launcher has started 4 processes"):
        relaunch(2)


def test_one_process_is_not_launched(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert relaunch(1) is None
