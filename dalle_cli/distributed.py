"""Split work over the processes that torchrun or `accelerate launch` started; only the first one writes results.

Every process iterates over the same items in the same order, works on its own part, and receives the results of all.
So the files equal those of a single process, and a command calls this module only where it works on items.
"""

import atexit
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .exits import DONE, FAILED, USAGE, Failure

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
R = TypeVar("R")

_groups: list[Any] = []  # torch.distributed, once this process has joined a group


def rank() -> int:
    """Return the index of this process, 0 for the first or the only one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def silence_other_ranks() -> None:
    """Discard the standard output of every process but the first."""
    if rank() and sys.stdout is not None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (open until the process ends)


def distributed_map(items: Iterable[T], work: Callable[[Any], Iterable[R]]) -> list[R]:
    """Return what `work` yields for each item, in order; every process works on its part of the items.

    work: takes an iterable of items, a list if there are several processes.
    """
    if world_size() == 1:
        return list(work(items))
    items = list(items)
    mine = items[rank() :: world_size()]
    parts = all_gather_object(list(work(mine)) if mine else [])
    return [parts[index % world_size()][index // world_size()] for index in range(len(items))]


def all_gather_object(value: T) -> list[T]:
    """Return the values of all processes, ordered by rank. Raises Failure when the processes cannot connect."""
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    if "MASTER_ADDR" not in os.environ:
        raise Failure(f"WORLD_SIZE={world_size()} without MASTER_ADDR: start with torchrun, or unset WORLD_SIZE", USAGE)
    values: list[Any] = [None] * world_size()
    try:
        if not dist.is_initialized():
            dist.init_process_group("gloo")
            _groups.append(dist)
            atexit.register(dist.destroy_process_group)  # for a program that does not end by `exit_process`
        dist.all_gather_object(values, value)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise Failure(
            f"another process ended or cannot be reached ({reason}); run the command again with --skip-existing"
        ) from None
    return values


def all_reduce_max(values: Sequence[float], device: "torch.device | str" = "cpu") -> list[float]:
    """Return the maximum of each value over the processes. device: where their group exchanges tensors."""
    if world_size() == 1:
        return list(values)
    import torch

    tensor = torch.tensor(list(values), dtype=torch.float64, device=device)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
    return tensor.tolist()


def all_reduce_mean(totals: "Mapping[str, torch.Tensor]", count: float) -> dict[str, float]:
    """Return totals over `count` items each, averaged over the processes, to six digits."""
    if not totals:
        return {}
    import torch

    means = torch.stack([value.float().reshape(()) for value in totals.values()]) / count
    if world_size() > 1:
        torch.distributed.all_reduce(means)
        means /= world_size()
    return {name: float(f"{value:.6g}") for name, value in zip(totals, means.tolist())}


def barrier() -> None:
    """Wait until every process has arrived; files that one wrote before are visible to all afterwards."""
    all_gather_object(None)


def exit_process(code: Any) -> NoReturn:
    """End this process with an exit code; immediately if it belongs to a group.

    The interpreter would tear down the threads of the group in an order that can abort a process that has finished.
    """
    if not _groups:
        sys.exit(code)
    streams = (stream for stream in (sys.stdout, sys.stderr) if stream)
    for finish in (*(stream.flush for stream in streams), _groups.pop().destroy_process_group):
        try:
            finish()
        except (OSError, RuntimeError):
            code = code or FAILED
    os._exit(code or DONE)
