import pytest
import torch

from dalle_cli.nn.kmeans import kmeans


def test_separate_clusters_are_found():
    true = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    points = (true[:, None] + 0.1 * torch.randn(4, 50, 2, generator=torch.Generator().manual_seed(0))).flatten(0, 1)
    centres, distance = kmeans(points, 4)
    assert torch.cdist(true, centres).min(dim=1).values.max() < 0.1
    assert distance == pytest.approx(0.02, rel=0.3)  # two numbers of variance 0.01


def test_duplicate_points_take_one_center():
    points = torch.cat([torch.zeros(1000, 3), torch.randn(40, 3, generator=torch.Generator().manual_seed(0))])
    centres, _ = kmeans(points, 8)
    assert len(torch.unique(centres, dim=0)) == 8
    assert (centres.norm(dim=1) < 1e-6).sum() <= 1


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="2 different points make no 3 clusters"):
        kmeans(torch.tensor([[0.0], [1.0], [1.0]]), 3)
