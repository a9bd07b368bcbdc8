import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dalle_cli.nn.all_gather import all_gather_with_grad, contrastive_loss

PROCESSES, ROWS = 2, 3


class Towers(nn.Module):
    """Two towers and a scale, the loss as forward: the smallest thing that trains as CLIP does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(5, 4), nn.Linear(7, 4)
        self.logit_scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, image, text):
        image, text = F.normalize(self.image(image), dim=-1), F.normalize(self.text(text), dim=-1)
        return contrastive_loss(image, text, self.logit_scale.exp())


def batch():
    generator = torch.Generator().manual_seed(1)
    n = PROCESSES * ROWS
    return torch.randn(n, 5, generator=generator), torch.randn(n, 7, generator=generator)


def one_of_many(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    model = DistributedDataParallel(Towers())
    own = slice(rank * ROWS, (rank + 1) * ROWS)
    image, text = batch()
    loss = model(image[own], text[own])
    loss.backward()
    gathered = all_gather_with_grad(torch.full((1, 2), float(rank)))
    gradients = {name: parameter.grad for name, parameter in model.module.named_parameters()}
    torch.save({"loss": loss.detach(), "gathered": gathered, **gradients}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(one_of_many, args=(str(folder),), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def test_rows_are_in_rank_order(of_many):
    for result in of_many:
        assert result["gathered"].tolist() == [[0, 0], [1, 1]]


def test_processes_equal_the_whole_batch(of_many):
    model = Towers()
    loss = model(*batch())
    loss.backward()
    torch.testing.assert_close(torch.stack([result["loss"] for result in of_many]).mean(), loss.detach())
    for name, parameter in model.named_parameters():
        for result in of_many:
            torch.testing.assert_close(result[name], parameter.grad, msg=name)


def test_a_single_process_gathers_nothing():
    x = torch.randn(2, 3)
    assert all_gather_with_grad(x) is x


def test_loss_is_symmetric_cross_entropy():
    image, text = F.normalize(torch.randn(2, 4, 8), dim=-1)
    cosines = image @ text.T
    expected = 0.0
    for i in range(4):
        expected -= (5 * cosines[i]).log_softmax(0)[i] / 8 + (5 * cosines[:, i]).log_softmax(0)[i] / 8
    torch.testing.assert_close(contrastive_loss(image, text, torch.tensor(5.0)), expected)


def test_logits_are_float32_under_autocast():
    torch.manual_seed(0)
    image, text = F.normalize(torch.randn(2, 4, 8), dim=-1)
    scale = torch.tensor(100.0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = contrastive_loss(image, text, scale)
    assert torch.equal(mixed, contrastive_loss(image, text, scale))
