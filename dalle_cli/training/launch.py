"""Several processes of one command on this machine, started as torchrun would start them."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO

from ..exits import DONE, INTERRUPTED, STOPPED, USAGE, Failure
from .signals import end_with_parent

GRACE = 5.0  # seconds that the others get to end by themselves after one has failed
IN_GOOD_ORDER = (DONE, STOPPED, INTERRUPTED)


def launch(processes: int, command: Sequence[str]) -> int:
    """Run `command` in so many processes; returns the exit code they share, or that of the first that failed.

    A process learns its place from RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Signals that ask for a
    stop are passed on to all. Only the first process writes to the terminal; what another wrote to standard error is
    shown, with its rank, if it is the one that failed. Raises Failure where there are fewer GPUs than processes.
    """
    _check_gpus(processes)
    received: list[int] = []
    stopping = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.signal(number, lambda number, frame: received.append(number)) for number in stopping}
    words = [tempfile.TemporaryFile() for _ in range(processes)]  # noqa: SIM115  (closed below)
    children: list[subprocess.Popen] = []
    try:
        environment = _environment(processes)
        for rank in range(processes):
            children.append(_start(command, environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, words[rank]))
        failed: list[int] = []
        deadline = float("inf")
        while None in [child.poll() for child in children]:  # all of them: the last may be the one that died
            while received:
                number = received.pop(0)
                for child in children:
                    child.send_signal(number)  # to one that has ended, nothing is sent
            if not failed:
                failed = [rank for rank, child in enumerate(children) if child.returncode not in (None, *IN_GOOD_ORDER)]
                deadline = time.monotonic() + GRACE if failed else deadline
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        failed = failed or [rank for rank, child in enumerate(children) if child.returncode not in IN_GOOD_ORDER]
        _show({rank: _last_words(children[rank].returncode, words[rank]) for rank in failed})
        code = children[failed[0]].returncode if failed else max(child.returncode for child in children)
        return 128 - code if code < 0 else code
    finally:
        for child in children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # with its workers
            child.wait()
        for file in words:
            file.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment(processes: int) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {"OMP_NUM_THREADS": str(max(1, cores // processes))}
    place = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return threads | os.environ | place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _start(command: Sequence[str], environment: dict[str, str], words: IO[bytes]) -> subprocess.Popen:
    """A process in a group of its own: Ctrl-C on the terminal reaches this one alone, which passes it on."""
    first = environment["RANK"] == "0"
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=None if first else subprocess.DEVNULL,
        stderr=None if first else words,
        process_group=0,
        preexec_fn=end_with_parent,
    )


def _last_words(code: int, file: IO[bytes]) -> str:
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    file.seek(0)
    return "\n".join(file.read().decode(errors="replace").splitlines()[-20:])


def _show(words: dict[int, str]) -> None:
    """Print what failed processes said, once where several said the same."""
    for text in dict.fromkeys(words.values()):
        ranks = ", ".join(str(rank) for rank in words if words[rank] == text)
        for line in text.splitlines():
            print(f"rank {ranks}: {line}", file=sys.stderr, flush=True)


def _check_gpus(processes: int) -> None:
    import torch

    if torch.cuda.is_available() and torch.cuda.device_count() < processes:
        raise Failure(f"--processes {processes}: this machine has {torch.cuda.device_count()} GPUs", USAGE)
