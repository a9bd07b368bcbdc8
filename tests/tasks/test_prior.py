import numpy as np
import pytest
import torch

from dalle_cli.models import models
from dalle_cli.tasks.prior import DiffusionPriorTask, candidate_seeds, pick_best
from tests.tasks.priors import AR, CAPTIONS, CLIP, DIFFUSION, prior, samples, words

NODES = {"diffusion": DIFFUSION, "ar": AR}


@pytest.fixture(scope="module", params=NODES)
def task(request):
    return prior(NODES[request.param])


def test_only_the_model_gets_gradients(task):
    loss, logs = task(task.collate(samples()), 0)
    loss.backward()
    assert loss.isfinite()
    assert all(value.ndim == 0 for value in logs.values())
    assert all(parameter.grad is not None for parameter in task.model.parameters())
    assert all(parameter.grad is None for parameter in task.clip.parameters())


def test_stored_embeddings_replace_images(task):
    batch = task.collate(samples())
    with torch.no_grad():
        whole, _ = task(batch, 0)
        batch["embedding"] = task.truth(batch)
        del batch["image"]
        assert torch.equal(task(batch, 0)[0], whole)
        batch["embedding"] = batch["embedding"][:, :5]
        with pytest.raises(ValueError, match="embeddings of 5 numbers, where the prior has 8"):
            task(batch, 0)


def test_texts_are_dropped_by_sample_seed():
    one = prior(DIFFUSION, text_drop_prob=0.5)
    batch = one.collate(samples(200))
    assert 70 < batch["dropped"].sum() < 130
    empty, _ = one.tokenizer.pack([""], one.model.context_length)
    assert ((batch["ids"] == torch.from_numpy(empty)).all(dim=1) == batch["dropped"]).all()
    again = one.collate(samples(200)[50:])
    assert torch.equal(again["dropped"], batch["dropped"][50:])


def test_preparing_whitens_the_embeddings():
    one = prior(DIFFUSION)
    batch = one.collate(samples(320))
    white = one.model.whiten(one.truth(batch)[~batch["dropped"]])
    assert white.mean(dim=0).abs().max() < 1e-3
    assert (white.std(dim=0, correction=0) - 1).abs().max() < 1e-3


def test_sampled_embeddings_are_independent(task):
    drawn = task.sample(CAPTIONS, [5, 2**64 - 1], steps="4")
    assert drawn.shape == (2, 8)
    assert drawn.isfinite().all()
    torch.testing.assert_close(task.sample(CAPTIONS[1:], [2**64 - 1], steps="4"), drawn[1:], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(task.sample(CAPTIONS[1:], [6], steps="4"), drawn[1:], atol=1e-3)
    assert not torch.allclose(task.sample(CAPTIONS[:1], [2**64 - 1], steps="4"), drawn[1:], atol=1e-3)


def test_best_candidate_is_kept(task):
    text, _ = task.read(CAPTIONS)
    fits = [torch.cosine_similarity(task.sample(CAPTIONS, [1, 2], steps="3", num_samples=n), text) for n in (1, 2, 8)]
    assert (fits[1] >= fits[0] - 1e-4).all()
    assert (fits[2] >= fits[1] - 1e-4).all()
    assert fits[2].sum() > fits[0].sum() + 1e-3
    with pytest.raises(ValueError, match="num_samples -1"):
        task.sample(CAPTIONS, [1, 2], num_samples=-1)


def test_guidance_extrapolates():
    one = prior(DIFFUSION)
    drawn = {scale: one.sample(CAPTIONS[:1], [3], scale, "5", 1) for scale in (0.0, 1.0, 3.0)}
    torch.testing.assert_close(drawn[0.0], one.sample([""], [3], 1.0, "5", 1), rtol=1e-3, atol=1e-3)
    assert (drawn[3.0] - drawn[1.0]).abs().max() > 1e-2


def test_drawing_is_watched(task):
    seen = []
    task.sample(CAPTIONS, [1, 2], steps="3", on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n + 1, len(seen)) for n in range(len(seen))]
    assert len(seen) in (3, 6)  # steps, or components


def test_first_candidates_do_not_depend_on_count():
    few, many = candidate_seeds([7, 8], 1), candidate_seeds([7, 8], 3).view(2, 3)
    assert torch.equal(few, many[:, 0])
    assert len(np.unique(many)) == 6


def test_pick_best_takes_the_largest_cosine():
    drawn = torch.tensor([[1.0, 0], [0, 9], [5, 5], [1, 0]])
    text = torch.tensor([[0.0, 1], [0, 1], [1, 0], [1, 0]])
    assert pick_best(drawn, text, 2).tolist() == [[0, 9], [1, 0]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"embed_dim": 9}, r"model\.embed_dim: 9, and frozen\.clip has 8"),
        ({"context_length": 5}, r"model\.context_length: 5, and frozen\.clip has 12"),
        ({"text_width": 5}, r"model\.text_width: 5, and frozen\.clip has 12"),
    ],
)
def test_prior_of_another_clip_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        DiffusionPriorTask(models.build(DIFFUSION | change), models.build(CLIP), words())


def test_missing_clip_is_named():
    alone = DiffusionPriorTask(models.build(DIFFUSION))
    with pytest.raises(ValueError, match=r"frozen\.clip: name the CLIP"):
        alone.sample(CAPTIONS, [1, 2])


def test_example_has_batch_shapes(task):
    batch, example = task.collate(samples(3)), task.example(3, 8)
    assert {name: value.shape for name, value in batch.items() if isinstance(value, torch.Tensor)} == {
        name: value.shape for name, value in example.items() if isinstance(value, torch.Tensor)
    }
