"""Start several processes of one command on this machine, as torchrun would: `--processes`."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO

from .exits import DONE, INTERRUPTED, STOPPED, USAGE, Failure

GRACE = 5.0  # seconds for the other processes to exit by themselves after one has failed
GRACEFUL = (DONE, STOPPED, INTERRUPTED)


def launch(processes: int, command: Sequence[str]) -> int:
    """Run `command` in several processes; returns the exit code they share, or that of the first that failed.

    A process reads its rank from RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Signals that ask for a stop
    are passed on to all processes. Only rank 0 writes to the terminal; standard error of another rank is shown, with
    its rank, if that rank failed and rank 0 did not fail with the same exit code. Raises Failure if there are fewer
    GPUs than processes.
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
        while None in [child.poll() for child in children]:  # poll all: any may be the one that died
            while received:
                number = received.pop(0)
                for child in children:
                    child.send_signal(number)  # does nothing to one that has ended
            if not failed:
                failed = [rank for rank, child in enumerate(children) if child.returncode not in (None, *GRACEFUL)]
                deadline = time.monotonic() + GRACE if failed else deadline
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        failed = failed or [rank for rank, child in enumerate(children) if child.returncode not in GRACEFUL]
        _show(_messages(children, failed, words))
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


def launched() -> bool:
    """Return whether this process was started by `launch`, torchrun or accelerate."""
    return "RANK" in os.environ


def relaunch(processes: int) -> int | None:
    """Run this command line in several processes; returns the exit code, or None in a process of the launch.

    Raises Failure if another launcher has started another number of processes.
    """
    if launched():
        if processes > 1 and os.environ.get("WORLD_SIZE") != str(processes):
            raise Failure(
                f"--processes {processes}: another launcher has started {os.environ.get('WORLD_SIZE')} processes; "
                "leave it out",
                USAGE,
            )
        return None
    return launch(processes, [sys.executable, "-m", "dalle_cli", *sys.argv[1:]]) if processes > 1 else None


def _messages(
    children: Sequence[subprocess.Popen], failed: Sequence[int], words: Sequence[IO[bytes]]
) -> dict[int, str]:
    """Return what failed ranks wrote to standard error; rank 0 has written to the terminal already.

    A rank that failed as rank 0 did, for the same reason, has nothing to add.
    """
    first = children[0].returncode
    silent = {rank for rank in failed if rank and first and first > 0 and children[rank].returncode == first}
    return {rank: _last_words(children[rank].returncode, words[rank]) for rank in failed if rank not in silent}


def end_with_parent() -> None:
    """Ask Linux for a SIGTERM when the parent process ends: nobody else would send one."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _environment(processes: int) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {"OMP_NUM_THREADS": str(max(1, cores // processes))}
    world = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return threads | os.environ | world | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _start(command: Sequence[str], environment: dict[str, str], words: IO[bytes]) -> subprocess.Popen:
    """Start a process in its own group: Ctrl-C on the terminal reaches only this process, which passes it on."""
    first = environment["RANK"] == "0"
    return subprocess.Popen(
        command,
        env=environment,
        stdin=None if first and _is_pipe(sys.stdin) else subprocess.DEVNULL,
        stdout=None if first else subprocess.DEVNULL,
        stderr=None if first else words,
        process_group=0,
        preexec_fn=end_with_parent,
    )


def _is_pipe(stream: IO | None) -> bool:
    """Return whether standard input can be read by a process that is not in the terminal's foreground."""
    return stream is not None and not stream.closed and not stream.isatty()


def _last_words(code: int, file: IO[bytes]) -> str:
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    file.seek(0)
    return "\n".join(file.read().decode(errors="replace").splitlines()[-20:])


def _show(words: dict[int, str]) -> None:
    """Print the messages of failed ranks, each distinct one once."""
    for text in dict.fromkeys(words.values()):
        ranks = ", ".join(str(rank) for rank in words if words[rank] == text)
        for line in text.splitlines():
            print(f"rank {ranks}: {line}", file=sys.stderr, flush=True)


def _check_gpus(processes: int) -> None:
    import torch

    if torch.cuda.is_available() and torch.cuda.device_count() < processes:
        raise Failure(f"--processes {processes}: this machine has {torch.cuda.device_count()} GPUs", USAGE)
