"""What this machine's arithmetic units are good at, and how its memory is best used."""

import ctypes
import sys

import torch

MMAP_MAX, TRIM_THRESHOLD, TOP_PAD, ARENA_MAX = -4, -1, -2, -8  # glibc's malloc.h


def fast_bf16() -> bool:
    """Whether bfloat16 multiplies faster than float32: CUDA from Ampere on, CPUs with AMX or AVX512-BF16."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def keep_memory() -> None:
    """Have glibc keep freed memory in the process: returned, every large activation is faulted in anew, page by page.

    On a CPU that costs convolutional networks more than their arithmetic does. Without glibc, nothing is done.
    """
    if not sys.platform.startswith("linux") or torch.cuda.is_available():
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 1 << 26)):
        mallopt(option, value)
