"""Small steps on a GPU, recorded once and replayed: started from Python one by one, they cost more than their work."""

from collections.abc import Callable

import torch
from torch import Tensor


def recorded(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The same work as a CUDA graph. It reads and writes the same tensors at every call, and returns the same one.

    work: runs a few times before it is recorded; nothing in it may wait for the GPU. Raises RuntimeError where that
    fails.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # what libraries set up at first use is not part of the graph
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = work()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay
