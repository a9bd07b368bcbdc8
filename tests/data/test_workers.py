import gc
import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from dalle_cli.data.source import DataError
from dalle_cli.data.workers import deliver


class Numbers:
    """Batch n says n; batch 100 is an error."""

    def __getitem__(self, number: int) -> dict | DataError:
        if number == 100:
            return DataError("no more")
        return {
            "image": torch.full((2, 3), number, dtype=torch.uint8),
            "seed": torch.tensor(number),
            "text": [str(number)],
        }


def texts(batches) -> list[str]:
    return [batch["text"][0] for batch in batches]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_in_order_as_floats_on_the_device(workers):
    batches = list(deliver(Numbers(), range(7), workers, "cpu"))
    assert texts(batches) == list("0123456")
    assert torch.equal(batches[5]["image"], torch.full((2, 3), 5 / 127.5 - 1))
    assert batches[5]["seed"] == 5
    (other,) = deliver(Numbers(), [8], workers, "meta")
    assert other["image"].is_meta
    assert other["image"].dtype == torch.float32
    assert other["seed"].is_meta


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_as_it_is_and_ends_the_workers(workers):
    batches = deliver(Numbers(), range(98, 200), workers, "cpu")
    assert [next(batches)["text"] for _ in range(2)] == [["98"], ["99"]]
    with pytest.raises(DataError, match=r"^no more$"):
        next(batches)
    assert not torch.multiprocessing.active_children()


def test_workers_outlive_the_signals_that_ask_the_run_to_stop():
    batches = deliver(Numbers(), range(90), 2, "cpu")
    first = list(itertools.islice(batches, 2))  # one of each worker
    children = torch.multiprocessing.active_children()
    assert len(children) == 2
    for child in children:
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(child.pid or 0, name)
    time.sleep(0.1)
    assert texts([*first, *batches]) == [str(number) for number in range(90)]
    assert not any(child.is_alive() for child in children)


@pytest.mark.slow
def test_workers_of_an_iterator_lost_in_a_cycle_end_at_last():
    cycle: list = [deliver(Numbers(), range(90), 1, "cpu")]
    cycle.append(cycle)
    next(cycle[0])
    (child,) = torch.multiprocessing.active_children()
    del cycle
    gc.collect()  # torch waits five seconds, since its message to the worker is lost, and then terminates it
    child.join(1)
    assert not child.is_alive()


def test_a_program_with_unfinished_iterators_ends_at_once_and_quietly():
    program = """
import sys, time
from dalle_cli.data.workers import deliver
numbers = [{"image": None}] * 50
batches, unused, others = (deliver(numbers, range(50), 2, "cpu") for _ in range(3))
next(batches), next(others)
print(time.time(), flush=True)
sys.exit(3)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (3, "")
    assert time.time() - float(done.stdout) < 4  # torch alone would wait five seconds for each worker
