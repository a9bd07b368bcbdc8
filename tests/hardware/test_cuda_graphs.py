import pytest
import torch

from dalle_cli.hardware.cuda_graphs import as_cuda_graph

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_replay_reads_current_values():
    x, total = torch.zeros(3, device="cuda"), torch.zeros(3, device="cuda")
    replay = as_cuda_graph(lambda: total.add_(x) * 2)
    total.zero_()
    for number in (1.0, 2.0, 3.0):
        x.fill_(number)
        out = replay()
    assert out.tolist() == [12.0] * 3


def test_failed_recording_restores_the_stream():
    x = torch.ones(3, device="cuda")
    before = torch.cuda.current_stream()
    with pytest.raises(RuntimeError):
        as_cuda_graph(lambda: x * x.sum().item())  # which waits for the GPU
    assert torch.cuda.current_stream() == before
    assert (x + 1).tolist() == [2.0] * 3
