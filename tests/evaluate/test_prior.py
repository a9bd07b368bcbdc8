import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.evaluate import prior as module
from dalle_cli.evaluate.prior import evaluate
from dalle_cli.exits import Failure
from dalle_cli.tasks import embedding
from dalle_cli.tasks.prior import DiffusionPriorTask
from tests.tasks.priors import AR, CLIP, DIFFUSION, words


@pytest.fixture
def saved(tmp_path):
    tokenizer = words()
    torch.manual_seed(0)
    recipes = {"clip": {"model": CLIP, "task": {"type": "clip"}}}
    recipes |= {node["type"]: {"model": node, "task": {"type": node["type"]}} for node in (DIFFUSION, AR)}
    paths = {name: str(tmp_path / f"{name}.safetensors") for name in recipes}
    for name, recipe in recipes.items():
        if name != "clip":
            recipe["frozen"] = {"clip": paths["clip"]}
        model = checkpoint.compose(recipe, tokenizer).model
        checkpoint.save(tmp_path / f"{name}.safetensors", model.state_dict(), recipe, tokenizer)
    return paths


def test_priors_stand_between_the_text_s_embedding_and_another_picture(saved):
    options = {"steps": "2", "best_of": 1, "temperature": None}
    found = evaluate([saved["diffusion-prior"], saved["ar-prior"]], 25, "shapes", options=options, among=10)
    assert (found.captions, found.among) == (20, 10)
    assert [row.name for row in found.rows] == [module.TEXT, saved["diffusion-prior"], saved["ar-prior"], module.OTHER]
    text, *priors, other = found.rows
    assert text.text == pytest.approx(1, abs=1e-5)
    assert other.first > 0.1
    assert all(-1 <= row.cosine <= 1 and row.parameters > 1000 for row in priors)


def test_a_prior_that_knows_the_truth_comes_first(saved, monkeypatch):
    scenes = list(module.unseen_scenes.scenes(20, 8, "shapes", distinct=True))

    def draw(self, texts, seeds, **options):
        pictures = [picture for _, text, picture in scenes if text in texts]
        return embedding.embed(self.clip, module.unseen_scenes.batch(pictures))

    monkeypatch.setattr(DiffusionPriorTask, "draw", draw)
    row = evaluate([saved["diffusion-prior"]], 20, "shapes", among=10).rows[1]
    assert (row.cosine, row.centred, row.first) == pytest.approx((1, 1, 1), abs=0.02)


def test_what_is_no_prior_or_of_another_clip_is_refused(saved, tmp_path):
    with pytest.raises(Failure, match="holds no prior"):
        evaluate([saved["clip"]], 20, "shapes", among=10)
    with pytest.raises(Failure, match="--among 30: from 2 up to --count 20"):
        evaluate([saved["ar-prior"]], 20, "shapes", among=30)
    torch.manual_seed(1)
    recipe = {"model": CLIP, "task": {"type": "clip"}}
    other = tmp_path / "other.safetensors"
    checkpoint.save(other, checkpoint.compose(recipe, words()).model.state_dict(), recipe, words())
    recipe = {"model": AR, "task": {"type": "ar-prior"}, "frozen": {"clip": str(other)}}
    checkpoint.save(tmp_path / "b.safetensors", checkpoint.compose(recipe, words()).model.state_dict(), recipe, words())
    with pytest.raises(Failure, match="is of another CLIP"):
        evaluate([saved["ar-prior"], str(tmp_path / "b.safetensors")], 20, "shapes", among=10)
