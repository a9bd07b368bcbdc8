import ctypes
import sys
from pathlib import Path

import pytest
import torch

from dalle_cli.hardware import capabilities


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bf16_is_fast_from_ampere(monkeypatch, capability, fast):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert capabilities.has_fast_bf16() == fast


@pytest.mark.parametrize(
    ("amx", "avx512", "vendor", "fast"),
    [
        (True, True, "GenuineIntel", True),
        (False, True, "GenuineIntel", False),
        (False, True, "AuthenticAMD", True),
        (False, False, "AuthenticAMD", False),
    ],
)
def test_bf16_is_fast_on_amx_and_amd(monkeypatch, amx, avx512, vendor, fast):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(capabilities, "_vendor", lambda: vendor)
    assert capabilities.has_fast_bf16() == fast


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_kept_without_gpu(monkeypatch):
    asked = []

    class Library:
        def __init__(self, name):
            pass

        def mallopt(self, option, value):
            asked.append(option)

    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    capabilities.keep_freed_memory()
    assert asked == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    capabilities.keep_freed_memory()
    assert {capabilities.MMAP_MAX, capabilities.TRIM_THRESHOLD} <= set(asked)
    asked.clear()
    capabilities.return_freed_memory()
    assert capabilities.MMAP_MAX not in asked
    assert capabilities.MMAP_THRESHOLD in asked


def test_missing_glibc_is_ignored(monkeypatch):
    def missing(name):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    capabilities.keep_freed_memory()


@pytest.mark.parametrize(
    ("limit", "used", "free"),
    [("max\n", "5\n", 3 << 30), (f"{4 << 30}\n", f"{3 << 30}\n", 1 << 30), ("1000\n", "2000\n", 0)],
)
def test_free_memory_in_a_container(monkeypatch, limit, used, free):
    files = {
        "/proc/meminfo": f"MemTotal: 999999999 kB\nMemAvailable:  {3 << 20} kB\n",
        "/sys/fs/cgroup/memory.max": limit,
        "/sys/fs/cgroup/memory.current": used,
    }
    monkeypatch.setattr(Path, "read_text", lambda path: files[str(path)])
    assert capabilities.free_memory("cpu") == free


def test_free_memory_falls_back_to_half(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    whole = capabilities.os.sysconf("SC_PHYS_PAGES") * capabilities.os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(Path, "read_text", missing)
    assert capabilities.free_memory("cpu") == whole // 2
