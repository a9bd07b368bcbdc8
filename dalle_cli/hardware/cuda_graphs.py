"""Small steps on a GPU, recorded once and replayed: started from Python one by one, they cost more than their work."""

from collections.abc import Callable

import torch
from torch import Tensor


def as_cuda_graph(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return the same work as a CUDA graph. It reads and writes the same tensors at every call, and returns the same
    one.

    work: runs three times before it is recorded; nothing in it may wait for the GPU. Raises RuntimeError if recording
    fails.
    """
    current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
    aside.wait_stream(current)
    with torch.cuda.stream(aside):  # what libraries set up at first use is not part of the graph
        for _ in range(3):
            work()
    current.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # data loaders continue in theirs
            out = work()
    finally:
        torch.cuda.set_stream(current)  # which a recording that fails does not restore

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay
