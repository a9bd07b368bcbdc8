"""What a computation costs: its floating-point operations, and the memory alive at its peak."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FORMULAS = {
    **flop_registry,
    ATTENTION: sdpa_flop,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}

# Memory on a CPU that is not in tensors: the program with its libraries, and heap fragmentation where freed memory is
# kept (hardware/capabilities.py), measured at 6 to 79 % of what a step allocates and frees, depending on the network
# and the machine. Neither is known for a GPU.
PROGRAM_BYTES = {"cpu": 400 << 20, "cuda": 0}
FRAGMENTATION = {"cpu": 1.45, "cuda": 1.0}

SMALL_BATCH = 8  # items that are worked on together without looking at memory
MEMORY_FRACTION = 0.6  # of the free memory that may be taken, holes not counted: others want some, too


class MemoryMeter(TorchDispatchMode):
    """Counts what is done while it is entered, on real tensors or on those of torch's FakeTensorMode, which hold none.

    flops: of matrix products, convolutions and attention, a multiplication and an addition being two; attention is
    counted whole, whatever its mask leaves out. live, peak: bytes by kind of what was made inside and is still held,
    and their maximum; "all" is the sum. Kinds are "work", "copies" (of `weights` in another type, which autocast
    makes), and those that `call` gives. What a kernel allocates and frees within itself is not seen.
    """

    def __init__(self, weights: Iterable[Tensor] = ()):
        super().__init__()
        self.flops = 0
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self._weights = {_key(weight) for weight in weights}
        self._held: dict[int, tuple[str, int]] = {}  # storage: its kind and bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = FORMULAS.get(func._overloadpacket)
        if formula:
            self.flops += formula(*args, **kwargs, out_val=out)
        given = {_key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        copied = func is torch.ops.aten._to_copy.default and not given.isdisjoint(self._weights)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and _key(leaf) not in given:
                self._hold(leaf, "copies" if copied else "work")
        return out

    def call(self, tensor: Tensor, kind: str) -> None:
        """Count a tensor as of this kind from now on."""
        key = _key(tensor)
        if key in self._held:
            old, size = self._held[key]
            self._held[key] = kind, size
            self._move(old, -size)
            self._move(kind, size)

    def _hold(self, tensor: Tensor, kind: str) -> None:
        key, storage = _key(tensor), tensor.untyped_storage()
        if key not in self._held:
            self._held[key] = kind, storage.nbytes()
            weakref.finalize(storage, self._release, key).atexit = False
            self._move(kind, storage.nbytes())

    def _release(self, key: int) -> None:
        kind, size = self._held.pop(key)
        self._move(kind, -size)

    def _move(self, kind: str, size: int) -> None:
        for one in (kind, "all"):
            self.live[one] += size
            self.peak[one] = max(self.peak[one], self.live[one])


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@dataclass(frozen=True)
class PeakMemory:
    """Bytes that some work holds at its peak: `fixed`, and `each` for every item that it works on at once."""

    fixed: int
    each: int

    def of(self, count: int) -> int:
        return self.fixed + count * self.each

    def within(self, budget: int) -> int:
        """Return how many items hold no more than `budget` bytes, one at least."""
        return max(1, (budget - self.fixed) // max(self.each, 1))


def describe_bytes(parts: dict[str, int]) -> str:
    """Return parts of memory in bytes, `total` among them, as text."""
    total, *rest = (
        f"{name} {size / 2**30:.2f} GiB" if size >= 2**30 else f"{name} {size / 2**20:.0f} MiB"
        for name, size in sorted(parts.items(), key=lambda part: part[0] != "total")
        if size
    )
    return f"{total.removeprefix('total ')} ({', '.join(rest)})"


def fit_peak_memory(work: Callable[[int], Any]) -> PeakMemory:
    """Return what `work(n)` holds, measured with two and three items: with one, copies may be views."""
    two, three = (_peak(work, count) for count in (2, 3))
    each = max(0, three - two)
    return PeakMemory(two - 2 * each, each)


def choose_batch_size(work: Callable[[int], Any], wanted: int, max_size: int, budget: int) -> int:
    """Return how many items to work on at once: at most `max_size`, and at most as many as `budget` bytes hold.

    wanted: number of items. work(n): works on n items; measured only if more than SMALL_BATCH are wanted.
    """
    count = min(wanted, max_size)
    return count if count <= SMALL_BATCH else min(count, fit_peak_memory(work).within(budget))


def _peak(work: Callable[[int], Any], count: int) -> int:
    with torch.no_grad(), MemoryMeter() as meter:
        work(count)
    return meter.peak["all"]
