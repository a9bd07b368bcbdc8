import pytest
import torch

from dalle_cli.nn.masks import PATTERNS, band, column, convolution, full, layer_patterns, row, window

GRIDS = [(1, 1), (1, 5), (5, 1), (2, 3), (3, 2), (4, 4), (5, 7)]


def slow(height, width, sees):
    """The mask of a rule `sees(row, column, other row, other column)` over earlier places, place by place."""
    n = height * width
    mask = torch.zeros(n, n, dtype=torch.bool)
    for query in range(n):
        for key in range(query + 1):
            mask[query, key] = sees(*divmod(query, width), *divmod(key, width))
    return mask


@pytest.mark.parametrize(("height", "width"), GRIDS)
def test_full_pattern(height, width):
    assert torch.equal(full(height, width), slow(height, width, lambda *places: True))


@pytest.mark.parametrize(("height", "width"), GRIDS)
def test_row_pattern(height, width):
    def sees(r, c, other_r, other_c):
        return other_r == r or (other_r == r - 1 and other_c >= c)

    assert torch.equal(row(height, width), slow(height, width, sees))


@pytest.mark.parametrize(("height", "width"), GRIDS)
def test_column_pattern(height, width):
    def sees(r, c, other_r, other_c):
        return other_c == c or (other_c == c - 1 and other_r == r)

    assert torch.equal(column(height, width), slow(height, width, sees))


@pytest.mark.parametrize(("height", "width"), GRIDS)
@pytest.mark.parametrize("kernel", [3, 5, 11])
def test_convolution_pattern(height, width, kernel):
    reach = kernel // 2

    def sees(r, c, other_r, other_c):
        back = (r - other_r) * width + c - other_c
        return any(abs(back - up * width) <= reach for up in range(reach + 1))

    assert torch.equal(convolution(height, width, kernel), slow(height, width, sees))


def test_the_paper_s_illustrations():
    """On 4 x 4 places, a row layer looks at 5 and so does a convolution of 3 x 3 (Ramesh et al. 2021, figure 11)."""
    assert row(4, 4)[9].nonzero().flatten().tolist() == [5, 6, 7, 8, 9]
    assert column(4, 4)[9].nonzero().flatten().tolist() == [1, 5, 8, 9]
    assert convolution(4, 4, 3)[9].nonzero().flatten().tolist() == [4, 5, 6, 8, 9]


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_are_causal(name):
    mask = PATTERNS[name](6, 6)
    assert mask.dtype == torch.bool
    assert mask.diagonal().all()
    assert not mask.triu(1).any()


@pytest.mark.parametrize("name", PATTERNS)
def test_layers_together_see_everything(name):
    """What one sparse layer does not see, a stack of them does."""
    mask = PATTERNS[name](6, 6).float()
    assert (torch.matrix_power(mask, 12)[-1] > 0).all()


def test_sparse_layer_order():
    kinds = layer_patterns("sparse", 64)
    assert kinds[-1] == "convolution"
    assert [i for i, kind in enumerate(kinds, 1) if kind == "column"] == list(range(2, 64, 4))
    assert kinds.count("row") == 63 - 16
    assert layer_patterns("full", 3) == ["full"] * 3
    with pytest.raises(ValueError, match=r"no pattern 'dense' \(known: sparse, full\)"):
        layer_patterns("dense", 3)


@pytest.mark.parametrize(("pattern", "before"), [(row, 1), (convolution, 5), (full, 5)])
def test_band_loses_nothing(pattern, before):
    height, width = 6, 12
    image = pattern(height, width)
    found = band(image, height)
    assert found.shape == (height, width, (before + 1) * width)
    assert found.sum() == image.sum()
    for line in range(height):
        for place in range(width):
            for back in range(min(before, line) + 1):
                start = (before - back) * width
                of_line = image[line * width + place, (line - back) * width :][:width]
                assert torch.equal(found[line, place, start : start + width], of_line)


@pytest.mark.parametrize("grid", [1, 2, 5, 12])
@pytest.mark.parametrize("name", PATTERNS)
def test_window_equals_mask(name, grid):
    """Places are written into their slots one after the other; each then finds in those it reads what it may see."""
    image, raster = PATTERNS[name](grid, grid), torch.arange(grid**2)
    found = window(image, raster.view(grid, grid).T.flatten() if name == "column" else raster)
    slots = torch.full((found.slots,), -1)
    for place in range(grid**2):
        slots[found.write[place]] = place
        read = slots[found.first[place] :][: found.count[place]]
        unseen = found.unseen[place, : len(read)]
        assert found.hides[place] == bool(unseen.any())
        assert read[~unseen].sort().values.tolist() == image[place].nonzero().flatten().tolist()


def test_windows_of_the_paper_are_small():
    raster = torch.arange(1024)
    by_column = raster.view(32, 32).T.flatten()
    orders = {name: by_column if name == "column" else raster for name in PATTERNS}
    found = {name: window(mask(32, 32), orders[name]) for name, mask in PATTERNS.items()}
    assert {name: one.slots for name, one in found.items()} == {
        **{"row": 33, "column": 1024 + 32, "convolution": 5 * 32 + 6, "full": 1024}
    }
    assert {name: one.unseen.shape[1] for name, one in found.items()} == {
        **{"row": 33, "column": 33, "convolution": 5 * 32 + 6, "full": 1024}
    }
    assert not any(found["row"].hides)
    assert not any(found["full"].hides)
