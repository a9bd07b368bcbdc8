import numpy as np
import pytest

from dalle_cli import images
from dalle_cli.evaluate import unseen_scenes
from dalle_cli.evaluate.upscale import KINDS, bicubic, pairs, score, table


def test_pairs_are_unseen_scenes_large_and_small():
    clean, degraded = (list(pairs(6, 32, 4, "shapes", kind)) for kind in KINDS)
    for pair, other, (_, text, picture) in zip(clean, degraded, unseen_scenes.scenes(6, 32, "shapes")):
        assert (pair.caption, other.caption) == (text, text)
        assert np.array_equal(np.asarray(pair.large), picture)
        assert pair.small.size == other.small.size == (8, 8)
        boxes = picture.astype(float).reshape(8, 4, 8, 4, 3).mean((1, 3))
        assert np.abs(np.asarray(pair.small) - boxes).max() <= 0.51  # reduced by area and rounded
    assert sum(not np.array_equal(np.asarray(a.small), np.asarray(b.small)) for a, b in zip(clean, degraded)) >= 4
    again = list(pairs(6, 32, 4, "shapes", "degraded"))
    assert all(np.array_equal(np.asarray(a.small), np.asarray(b.small)) for a, b in zip(degraded, again))


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_upsampler_beats_bicubic_and_bicubic_gains_nothing(kind):
    found = list(pairs(5, 32, 4, "shapes", kind))
    best = score(kind, found, [pair.large for pair in found])
    assert best.drawn.value == pytest.approx(100)
    assert best.gain.value == pytest.approx(100 - best.bicubic.value)
    assert best.gain.interval[0] > 20
    same = score(kind, found, [bicubic(pair) for pair in found])
    assert same.gain.value == 0
    assert same.bicubic == best.bicubic
    inverted = [images.to_pil(-images.to_tensor(pair.large)) for pair in found]
    assert score(kind, found, inverted).gain.value < -3
    head, *rows = table([best, same])
    assert head.split()[:3] == ["input", "pictures", "PSNR"]
    assert [row.split()[:2] for row in rows] == [[kind, "5"]] * 2
    assert "+0.00" in rows[1]
    assert best.plain["gain"] == best.gain.value
    assert score(kind, found[:1], [found[0].large]).plain["gain_interval"] is None


def test_as_many_pictures_as_pairs():
    with pytest.raises(ValueError, match="longer"):
        score("clean", list(pairs(2, 16, 2, "shapes", "clean")), [])
