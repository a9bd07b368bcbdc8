"""Worker processes that read batches ahead, and end however the program ends.

Torch's DataLoader does the work. What is added: a stop signal sent to the whole process group (by a terminal or a
batch system) does not reach the workers, so that the main process can finish its step and save; and an unfinished
iterator delays neither an error nor the end of the program.
"""

import atexit
import functools
import multiprocessing
import os
import signal
import warnings
import weakref
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from ..images import to_float
from .source import DataError

if TYPE_CHECKING:
    import torch


class Reader(Protocol):
    def __getitem__(self, number: int) -> dict | DataError:
        """Return batch `number`, or an error: raised in a worker, it would arrive with its traceback as text."""
        ...


def deliver(reader: Reader, numbers: Iterable[int], workers: int, device: "torch.device | str") -> Iterator[dict]:
    """Yield batches `numbers` of a reader, in order, read ahead by `workers` processes (0: by this one, on demand).

    Their tensors come on `device`; `image`, if it is uint8, as float32 in [-1, 1]. Raises the DataError that a reader
    returned.
    """
    import torch
    from torch.utils.data import DataLoader

    stopping = multiprocessing.RawValue("b", False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more than cores: good for slow disks
        loader = DataLoader(
            reader,  # type: ignore[arg-type]  (anything with __getitem__ serves)
            sampler=numbers,
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
            worker_init_fn=functools.partial(_outlive_signals, stopping),
            pin_memory=torch.device(device).type == "cuda",
            generator=torch.Generator(),  # otherwise starting a loader would advance the run's generator
        )
        batches = _delivered(iter(loader), device)
    weakref.finalize(batches, setattr, stopping, "value", True)
    _open.add(batches)
    atexit.unregister(_close)
    atexit.register(_close)  # the last registered is the first to run: before torch waits for its workers
    return batches


def _delivered(batches: Iterator[Any], device: "torch.device | str") -> Generator[dict, None, None]:
    import torch

    error = None
    for batch in batches:
        if isinstance(batch, DataError):
            error = batch
            break
        for name, value in batch.items():
            if isinstance(value, torch.Tensor):
                batch[name] = value.to(device, non_blocking=True)
        if batch.get("image") is not None and batch["image"].dtype == torch.uint8:
            batch["image"] = to_float(batch["image"])
        yield batch
    del batches  # ends the workers now, not when the traceback is let go
    if error:
        raise error


_open: weakref.WeakSet[Generator] = weakref.WeakSet()


def _close() -> None:
    """End the workers of unfinished iterators when the program ends."""
    for batches in list(_open):
        batches.close()


def _unchanged(batch: Any) -> Any:
    return batch


def _outlive_signals(stopping: Any, worker: int) -> None:
    """In a worker: continue when the process group is told to stop, as the main process must save first.

    stopping: shared; true once the main process has released the loader and its SIGTERM is meant.
    """

    def heed(number: int, frame: Any) -> None:
        if stopping.value:
            os._exit(0)

    signal.signal(signal.SIGTERM, heed)
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
