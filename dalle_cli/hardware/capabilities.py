"""What this machine's arithmetic units are good at, and how its memory is best used."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

MMAP_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD, TOP_PAD, ARENA_MAX = -4, -3, -1, -2, -8  # glibc's malloc.h


def has_fast_bf16() -> bool:
    """Return whether bfloat16 multiplies faster than float32: CUDA from Ampere on, CPUs with AMX, AMD's with
    AVX512-BF16.

    Intel's AVX512-BF16 by itself is slower: 84 GFLOP/s where float32 has 143, on one core of a Xeon whose AMX is shut
    off.
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    return torch.cpu._is_amx_tile_supported() or (torch.cpu._is_avx512_bf16_supported() and "AMD" in _vendor())


def _vendor() -> str:
    """Of the CPU, such as AuthenticAMD; empty where Linux does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")


_devices: list[str] = []  # that estimates are made for, innermost last


@contextmanager
def estimating_for(device: str) -> Iterator[None]:
    """Make `on_cpu` answer for `device` inside: estimates for a GPU leave out what is done only on CPUs."""
    _devices.append(device)
    try:
        yield
    finally:
        _devices.pop()


def on_cpu(x: Tensor) -> bool:
    """Return whether to take the code paths that are faster on CPUs."""
    return x.device.type == "cpu" and (not _devices or _devices[-1] == "cpu")


def free_memory(device: str) -> int:
    """Return the free memory in bytes: of the GPU, or of this machine and the container of this process."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024 * int(rows["MemAvailable"].split()[0])
    except (OSError, KeyError):  # not Linux: half of all there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text() for name in ("max", "current"))
        return max(0, min(free, int(limit) - int(used)))
    except (OSError, ValueError):  # no limit
        return free


def total_memory() -> int:
    """Return the memory in bytes of this machine, or of the container of this process."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no limit
        return whole


def keep_freed_memory() -> None:
    """Have glibc keep freed memory in the process: returned, every large activation is faulted in anew, page by page.

    On a CPU that costs convolutional networks more than their arithmetic does. Without glibc, nothing is done.
    """
    _mallopt((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 1 << 26))


def return_freed_memory() -> None:
    """Have glibc return large blocks at once: the other way, for those who recompute activations to hold little.

    Kept, what is held over many blocks lies between holes that nothing fits: of ViT's activations, recomputed, 406 MB
    took 1,460 MB; returned, they take 424 MB, in twice the time.
    """
    _mallopt((ARENA_MAX, 1), (MMAP_THRESHOLD, 1 << 20))


def _mallopt(*options: tuple[int, int]) -> None:
    if not sys.platform.startswith("linux") or torch.cuda.is_available():
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option, value in options:
        mallopt(option, value)
