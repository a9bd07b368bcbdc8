import pytest

from dalle_cli.evaluate.recovered import psnrs


def test_psnrs_above_the_threshold_are_counted():
    figures = psnrs([24.0, 26.0, 100.0, 25.0])
    assert figures.psnr.value == pytest.approx(43.75)
    assert (figures.above_threshold.successes, figures.above_threshold.trials) == (2, 4)
    assert (figures.to_json()["above_threshold"], figures.to_json()["threshold_db"]) == (0.5, 25)
    assert "above 25 dB:  50.0%" in str(figures)
    assert psnrs([30.0]).to_json()["psnr_interval"] is None
