import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.evaluate import prior, samples
from dalle_cli.evaluate.protocols.prior import OTHER, TEXT
from dalle_cli.exits import Failure
from dalle_cli.models import embedding
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


def test_rows_are_text_priors_and_another_image(saved):
    models, done = [saved["diffusion-prior"], saved["ar-prior"]], []
    result = prior(models, 25, 10, "shapes", steps="2", prior_samples=1, progress=lambda *stage: done.append(stage))
    assert (result.num_captions, result.pool_size) == (20, 10)
    assert [row.name for row in result.priors] == [TEXT, *models, OTHER]
    text, *priors, other = result.priors
    assert text.text_cosine == pytest.approx(1, abs=1e-5)
    assert other.recall_at_1 > 0.1
    assert all(-1 <= row.cosine <= 1 and row.num_parameters > 1000 for row in priors)
    assert done == [(name, 20, 20) for name in models]
    assert len(result.table()) == 6


def test_perfect_prior_has_full_recall(saved, monkeypatch):
    scenes = list(samples.unseen(20, 8, "shapes", distinct=True))

    def sample(self, texts, seeds, **options):
        return embedding.embed_images(self.clip, samples.batch([one.image for one in scenes if one.caption in texts]))

    monkeypatch.setattr(DiffusionPriorTask, "sample", sample)
    row = prior([saved["diffusion-prior"]], 20, 10, "shapes").priors[1]
    assert (row.cosine, row.centered_cosine, row.recall_at_1) == pytest.approx((1, 1, 1), abs=0.02)


def test_other_models_and_other_clips_are_refused(saved, tmp_path):
    with pytest.raises(Failure, match="holds no prior"):
        prior([saved["clip"]], 20, 10, "shapes")
    with pytest.raises(Failure, match="--pool-size 30: from 2 to --num-captions 20"):
        prior([saved["ar-prior"]], 20, 30, "shapes")
    torch.manual_seed(1)
    recipe = {"model": CLIP, "task": {"type": "clip"}}
    other = tmp_path / "other.safetensors"
    checkpoint.save(other, checkpoint.compose(recipe, words()).model.state_dict(), recipe, words())
    recipe = {"model": AR, "task": {"type": "ar-prior"}, "frozen": {"clip": str(other)}}
    checkpoint.save(tmp_path / "b.safetensors", checkpoint.compose(recipe, words()).model.state_dict(), recipe, words())
    with pytest.raises(Failure, match="is of another CLIP"):
        prior([saved["ar-prior"], str(tmp_path / "b.safetensors")], 20, 10, "shapes")
