"""Drawing and judging by several processes (torchrun, accelerate launch): each does its share, the first alone writes.

Every process goes through the same items in the same order, works on its own of them, and then has the results of all.
So files are those of one process, and a command needs to know of others only where it works.
"""

import atexit
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

from .exits import DONE, FAILED, USAGE, Failure

T = TypeVar("T")
R = TypeVar("R")

_groups: list[Any] = []  # torch.distributed, once this process has met others


def rank() -> int:
    """The place of this process, 0 for the first or the only one."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def silence() -> None:
    """Let the first process alone print results."""
    if rank() and sys.stdout is not None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (held to the end)


def shared(items: Iterable[T], work: Callable[[Any], Iterable[R]]) -> list[R]:
    """What `work` makes of the items, one for one and in their order; this process works on its share of them.

    work: takes items, a list of them where others work as well.
    """
    if count() == 1:
        return list(work(items))
    everything = list(items)
    own = everything[rank() :: count()]
    parts = exchange(list(work(own)) if own else [])
    return [parts[number % count()][number // count()] for number in range(len(everything))]


def exchange(value: T) -> list[T]:
    """The values of all processes, in their order. Raises Failure where they do not reach each other."""
    if count() == 1:
        return [value]
    import torch.distributed as dist

    if "MASTER_ADDR" not in os.environ:
        raise Failure(f"WORLD_SIZE={count()} without MASTER_ADDR: start with torchrun, or unset WORLD_SIZE", USAGE)
    found: list[Any] = [None] * count()
    try:
        if not dist.is_initialized():
            dist.init_process_group("gloo")
            _groups.append(dist)
            atexit.register(dist.destroy_process_group)  # where the program does not end by `end`
        dist.all_gather_object(found, value)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise Failure(
            f"another process has ended or is not to be reached; go on with --skip-existing ({reason})"
        ) from None
    return found


def end(code: Any) -> NoReturn:
    """End this process with an exit code; with others, at once.

    The interpreter would take down threads of theirs in an order that has aborted a process whose work was done.
    """
    if not _groups:
        sys.exit(code)
    for leave in (*(one.flush for one in (sys.stdout, sys.stderr) if one), _groups.pop().destroy_process_group):
        try:
            leave()
        except (OSError, RuntimeError):
            code = code or FAILED
    os._exit(code or DONE)


def meet() -> None:
    """Wait for all processes: what was looked up before, no other has changed; what it wrote before is there after."""
    exchange(None)
