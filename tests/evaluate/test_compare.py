from pathlib import Path

import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.evaluate.compare import Comparison, features
from dalle_cli.evaluate.generated import Files
from dalle_cli.exits import Failure
from dalle_cli.registry import RecipeError

CAPTIONS = ["a star", "a circle"]


@pytest.fixture
def compare(unclip, glide, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(scales=(None,), recipes=(unclip.recipe, glide.recipe), out="out", dry_run=False):
        options = Files(steps="2", out=out, quiet=True, precision="float32")
        return Comparison(recipes, CAPTIONS, 2, scales, options, None, dry_run)

    return make


@pytest.mark.slow
def test_systems_generate_the_same_captions_at_all_scales(compare, glide):
    comparison = compare((1.0, 2.0), out="all")
    comparison.generate()
    assert list(comparison.generated) == [(name, scale) for name in ("unclip", "glide") for scale in (1.0, 2.0)]
    for rows in comparison.generated.values():
        assert [[one["prompt"] for one in row] for row in rows] == [[caption] * 2 for caption in CAPTIONS]
    assert comparison.generated["glide", 2.0][0][0]["path"].startswith("all/glide/guidance-scale-2/")
    of_captions = features(comparison.generated["unclip", 1.0], glide.clip, "float32")
    assert [one.shape for one in of_captions] == [(2, 8), (2, 8)]
    torch.testing.assert_close(torch.cat(of_captions).norm(dim=1), torch.ones(4))


def test_rows_show_systems_side_by_side(compare):
    comparison = compare()
    comparison.generate()
    rows = comparison.rows({name: [["yes", "no"], ["no", "yes"]] for name in comparison.names})
    assert [[label for _, label in row] for row in rows] == [["yes", "no"] * 2, ["no", "yes"] * 2]
    assert all(Path(path).is_file() for row in rows for path, _ in row)


def test_errors_come_before_any_model_is_loaded(compare, unclip, glide, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "load", None)
    with pytest.raises(Failure, match="compared with itself"):
        compare(recipes=(glide.recipe, glide.recipe))
    with pytest.raises(RecipeError, match=r"scale -1\.0"):
        compare((1.0, -1.0))
    with pytest.raises(RecipeError, match="only diffusion systems"):
        compare(recipes=(tiny.recipe, glide.recipe))
    lost = tmp_path / "lost.yaml"
    lost.write_text("system: {type: glide}\nparts: {decoder: checkpoints/none}\n")
    with pytest.raises(checkpoint.CheckpointError, match="checkpoints/none"):
        compare(recipes=(unclip.recipe, str(lost)))
    compare((1.0, 2.0), dry_run=True)
    assert "2 captions x 2 images x 2 guidance scales" in capsys.readouterr().err
    other = tmp_path / "unclip.yaml"
    other.write_text(Path(unclip.recipe).read_text())
    assert compare(recipes=(unclip.recipe, str(other))).names == ["0-unclip", "1-unclip"]
