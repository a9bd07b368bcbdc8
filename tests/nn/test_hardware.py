import ctypes
import sys

import pytest
import torch

from dalle_cli.nn import hardware


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_multiply_bf16_fast_from_ampere_on(monkeypatch, capability, fast):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert hardware.fast_bf16() == fast


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_kept_where_there_is_no_gpu(monkeypatch):
    asked = []

    class Library:
        def __init__(self, name):
            pass

        def mallopt(self, option, value):
            asked.append(option)

    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    hardware.keep_memory()
    assert asked == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    hardware.keep_memory()
    assert {hardware.MMAP_MAX, hardware.TRIM_THRESHOLD} <= set(asked)


def test_a_system_without_glibc_does_without(monkeypatch):
    def missing(name):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    hardware.keep_memory()
