import pytest
import torch

from tests.parity import packages
from tests.parity.peers import Missing


def gone():
    raise Missing("nowhere: no such package")


ONE = {"x": torch.tensor([1.0, -2.0])}
CASES = {
    "same: one": lambda: (1234, ONE, {"x": ONE["x"].clone()}),
    "near: one": lambda: (5, ONE, {"x": ONE["x"] + 1e-4}),
    "far: two": lambda: (6, ONE, {"x": ONE["x"] + 1e-3}),
    "other: two": lambda: (6, ONE, {"x": torch.ones(3)}),
    "absent: three": gone,
}


@pytest.mark.parametrize(
    ("words", "code", "last"),
    [
        ([], 1, "4 of 5 compared, 2 of them not below 1e-04"),
        (["SAME", "near", "absent"], 0, "2 of 3 compared, 0 of them not below 1e-04"),
        (["three"], 3, "0 of 1 compared, 0 of them not below 1e-04"),
        (["other"], 1, "1 of 1 compared, 1 of them not below 1e-04"),
    ],
)
def test_rows_and_exit_codes(monkeypatch, capsys, words, code, last):
    monkeypatch.setattr(packages, "CASES", CASES)
    assert packages.main(words) == code
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines[1:-1]}
    assert lines[-1] == last
    if not words:
        assert list(rows) == ["same", "near", "far", "other", "absent"]
        assert "1,234   0.0e+00" in rows["same"]
        assert "5.0e-05" in rows["near"]
        assert "5.0e-04" in rows["far"]
        assert "shape" in rows["other"]
        assert rows["absent"].endswith("not compared: nowhere: no such package")


def test_published_models_are_covered():
    names = " ".join(packages.CASES)
    for name in ("ViT-B/32", "ViT-L/14", "RN50", "ViT-B/16", "prior", "decoder", "super-resolution", "VQGAN"):
        assert name in names
