"""Drawing that is killed in the middle and started again."""

import multiprocessing
import os
import random
import signal
import time

import pytest

from dalle_cli.generate.outputs import Collected
from dalle_cli.generate.sample import SampleOptions, sample

KILLS = 10


def drawn(recipe, out):
    """In a process of its own: 24 pictures of two prompts into a folder."""
    options = {"recipe": recipe, "precision": "float32", "quiet": True, "batch_size": 4}
    how = SampleOptions(num_images=12, out=out, skip_existing=True, **options)
    raise SystemExit(sample(["a red circle", "a blue square"], how, results=Collected()))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_killed_and_started_again_it_leaves_the_same_files(tmp_path, tiny):
    """Byte for byte, and nothing else: no half picture, no left-over of a writer."""
    forks = multiprocessing.get_context("forkserver")  # it imports once, and forks
    forks.set_forkserver_preload(["tests.generate.test_faults", "dalle_cli.systems.dalle1"])
    chance = random.Random(0)

    def start(out):
        child = forks.Process(target=drawn, args=(tiny.recipe, str(out)))
        child.start()
        return child

    start(tmp_path / "warm-up").join()
    began = time.monotonic()
    start(tmp_path / "undisturbed").join()
    length = time.monotonic() - began
    expected = contents(tmp_path / "undisturbed")
    assert len(expected) == 24
    kills, in_the_middle, attempts = 0, 0, 0
    while kills < KILLS:
        out = tmp_path / f"out-{attempts}"
        attempts += 1
        while True:
            child = start(out)
            if kills % 2:
                child.join(chance.uniform(0, length))
            else:  # most of the time goes into starting: half of the kills wait for a picture
                wanted = len(list(out.glob("*.png"))) + chance.randint(1, 5)
                while child.is_alive() and len(list(out.glob("*.png"))) < wanted:
                    time.sleep(0.005)
            if kills < KILLS and child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
            child.join()
            if child.exitcode == 0:
                break
            assert child.exitcode == -signal.SIGKILL
            in_the_middle += out.exists() and 0 < len(list(out.glob("*.png"))) < 24
        assert contents(out) == expected
    assert in_the_middle > 0
    print(f"{kills} kills of {attempts} runs of {length:.1f} s, {in_the_middle} with some of the pictures there")
