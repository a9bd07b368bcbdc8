import torch

from dalle_cli.nn.pca import principal_components


def stretched(count=4000):
    """Vectors of deviation 3, 2 and 1/2 along turned axes."""
    generator = torch.Generator().manual_seed(0)
    turned, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    return torch.randn(count, 3, generator=generator) * torch.tensor([2.0, 0.5, 3.0]) @ turned.T + 5, turned


def test_directions_come_by_falling_variance():
    vectors, turned = stretched()
    found = principal_components(vectors)
    torch.testing.assert_close(found.variances.sqrt().float(), torch.tensor([3.0, 2.0, 0.5]), rtol=0.05, atol=0)
    alike = (found.basis.float() @ turned[:, [2, 0, 1]]).abs().diagonal()
    assert alike.min() > 0.99
    torch.testing.assert_close(found.mean.float(), vectors.mean(dim=0))


def test_basis_is_orthonormal_with_fixed_signs():
    vectors, _ = stretched()
    basis = principal_components(vectors).basis
    torch.testing.assert_close(basis @ basis.T, torch.eye(3, dtype=torch.float64))
    assert (basis.gather(1, basis.abs().argmax(dim=1, keepdim=True)) > 0).all()


def test_components_for_explained_variance():
    found = principal_components(stretched()[0])  # variances about 9, 4 and 1/4
    assert [found.enough(share) for share in (0.1, 0.6, 0.9, 0.99, 1.0)] == [1, 1, 2, 3, 3]
    still = principal_components(torch.ones(5, 3))
    assert still.enough(1.0) in (1, 2, 3)
    assert still.variances.abs().max() < 1e-12
