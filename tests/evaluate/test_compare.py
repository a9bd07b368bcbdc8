from pathlib import Path

import pytest
import torch
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.evaluate.compare import Contest, features
from dalle_cli.exits import Failure
from dalle_cli.generate.sample import Job
from dalle_cli.registry import RecipeError

CAPTIONS = ["a star", "a circle"]


@pytest.fixture
def contest(unclip, glide, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(scales=(None,), recipes=(unclip.recipe, glide.recipe), **job):
        job = Job(quiet=True, precision="float32", **job)
        return Contest(recipes, CAPTIONS, 2, scales, job, {"steps": "2"})

    return make


@pytest.mark.slow
def test_all_draw_the_same_captions_at_all_scales(contest, glide):
    made = contest((1.0, 2.0), out="all")
    made.draw()
    assert list(made.drawn) == [(name, scale) for name in ("unclip", "glide") for scale in (1.0, 2.0)]
    for rows in made.drawn.values():
        assert [[one["prompt"] for one in row] for row in rows] == [[caption] * 2 for caption in CAPTIONS]
    assert made.drawn["glide", 2.0][0][0]["path"].startswith("all/glide/scale-2/")
    found = features(made.drawn["unclip", 1.0], glide.clip, "float32")
    assert [one.shape for one in found] == [(2, 8), (2, 8)]
    torch.testing.assert_close(torch.cat(found).norm(dim=1), torch.ones(4))


def test_a_sheet_has_them_side_by_side(contest):
    made = contest(sheet="s.png")
    made.draw()
    made.sheet({name: [["yes", "no"], ["no", "yes"]] for name in made.names})
    assert Image.open("s.png").size[0] == 4 * 136 + 8


def test_all_that_can_be_wrong_is_found_before_any_model(contest, unclip, glide, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "load", None)
    with pytest.raises(Failure, match="against itself"):
        contest(recipes=(glide.recipe, glide.recipe))
    with pytest.raises(RecipeError, match=r"scale -1\.0"):
        contest((1.0, -1.0))
    with pytest.raises(RecipeError, match="only systems of diffusion"):
        contest(recipes=(tiny.recipe, glide.recipe))
    lost = tmp_path / "lost.yaml"
    lost.write_text("system: {type: glide}\nparts: {decoder: checkpoints/none}\n")
    with pytest.raises(checkpoint.CheckpointError, match="checkpoints/none"):
        contest(recipes=(unclip.recipe, str(lost)))
    (tmp_path / "s.png").touch()
    with pytest.raises(Failure, match="is there already"):
        contest(sheet="s.png")
    contest((1.0, 2.0), dry_run=True)
    assert "2 captions x 2 pictures x 2 scales" in capsys.readouterr().err
    other = tmp_path / "unclip.yaml"
    other.write_text(Path(unclip.recipe).read_text())
    assert contest(recipes=(unclip.recipe, str(other))).names == ["0-unclip", "1-unclip"]
