"""What needs a real process: pipes that close, signals, missing streams."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import one_line
from tests.untrusted.conftest import tree

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def start(files, tmp_path):
    """Start a command in an empty folder; `@` in a word is the folder of untrusted files."""
    begun = []

    def run(*words: str, **streams) -> subprocess.Popen:
        command = [sys.executable, "-m", "dalle_cli", *(word.replace("@", f"{files}/") for word in words)]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        begun.append(subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, text=True, **streams))
        return begun[-1]

    yield run
    for process in begun:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "words",
    [
        ("rerank", "@good.png", "--prompt", "x", "--model", "@clip.safetensors", "-q"),
        ("inspect", "@dvae.safetensors"),
    ],
    ids=lambda words: words[0],
)
def test_closed_pipe_ends_quietly(start, words):
    reading, writing = os.pipe()
    os.close(reading)
    process = start(*words, stdout=writing)
    os.close(writing)
    assert (process.communicate(timeout=120)[1], process.returncode) == ("", 128 + signal.SIGPIPE)


@pytest.mark.parametrize(
    ("redirection", "message"),
    [("< @good.png", "text"), ("< /dev/null", "is empty"), ("<&-", "standard input is closed")],
)
def test_invalid_standard_input(start, files, tmp_path, redirection, message):
    command = f"exec {sys.executable} -m dalle_cli sample - --recipe {files}/tiny.yaml -q {redirection}"
    command = command.replace("@", f"{files}/")
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, one_line(ended.stderr)) == (3, "", True), ended.stderr
    assert message in ended.stderr
    assert tree(tmp_path) == {}


def test_closed_standard_output(files, tmp_path):
    command = f"exec {sys.executable} -m dalle_cli sample x --recipe {files}/tiny.yaml -q >&-"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert (ended.returncode, one_line(ended.stderr)) == (1, True), ended.stderr
    assert "standard output is closed" in ended.stderr
    assert tree(tmp_path) == {}


def test_full_disk(start):
    with open("/dev/full", "w") as full:
        process = start("sample", "x", "--recipe", "@tiny.yaml", "-q", stdout=full)
        _, words = process.communicate(timeout=120)
    assert (process.returncode, one_line(words)) == (1, True)
    assert "No space left" in words


@pytest.mark.parametrize("again", [0.0, pytest.param(0.2, marks=pytest.mark.slow)])
def test_ctrl_c_twice_while_sampling(start, tmp_path, again):
    process = start("sample", *["x y"] * 20_000, "--batch-size", "1", "--recipe", "@tiny.yaml")
    out = tmp_path / "out"
    _wait(lambda: out.is_dir() and len(list(out.glob("*.png"))) > 2)
    process.send_signal(signal.SIGINT)
    time.sleep(again)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGINT), words  # the second may come when Python is ending
    assert "Traceback" not in words
    for name, content in tree(tmp_path).items():
        assert re.fullmatch(r"out/\d{6}-0-x-y\.png", name)
        assert content.endswith(b"IEND\xaeB`\x82"), name


@pytest.mark.slow
def test_ctrl_c_twice_while_training(start, tmp_path):
    words = ("train-dvae", "--recipe", "@train.yaml", "train.steps=1000000", "train.save_every=20")
    process = start(*words)
    resume = tmp_path / "checkpoints" / "dvae-train" / "resume"
    _wait(lambda: list(resume.glob("step-*")))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, output = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    again = start(*words, "--max-time", "1s")
    _, output = again.communicate(timeout=120)
    assert again.returncode == 75, output
    assert re.search(r"resuming checkpoints/dvae-train from step \d+,", output)
    assert not [name for name in tree(tmp_path) if name.endswith(".tmp")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("after", [0.0, 0.3, 0.6])
def test_ctrl_c_while_torch_is_imported(start, tmp_path, after):
    process = start("sample", "x", "-n", "100000", "--recipe", "@tiny.yaml", "-q")
    _wait(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text())
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=30)
    assert (process.returncode, words) == (130, "")


def _wait(done) -> None:
    for _ in range(600):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError("it did not start within a minute")
