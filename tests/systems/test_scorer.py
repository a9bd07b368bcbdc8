from dataclasses import replace

import pytest
import torch
from PIL import Image

from dalle_cli import checkpoint, images
from dalle_cli.systems import scorer as scorer_module
from dalle_cli.systems.scorer import Scorer
from tests.fixtures.miniatures import CLIP_SIZE, CPU, noise, packs

PROMPTS = ["a red circle", "a blue square", "a red circle"]


@pytest.fixture
def scorer(tiny):
    return Scorer(CPU, tiny.clip)


def pictures(count, size=CLIP_SIZE):
    return torch.stack([images.to_tensor(noise(i, size, size)) for i in range(count)])


def test_scores_are_cosines_of_clip_features(scorer, tiny):
    task = checkpoint.load(tiny.clip)
    ids, _ = task.tokenizer.pack(PROMPTS, task.model.text.context_length)
    with torch.no_grad():
        seen, read, _ = task.model(pictures(5), torch.from_numpy(ids))
    scores = scorer.images(pictures(5)) @ scorer.texts(PROMPTS).T
    torch.testing.assert_close(scores, seen @ read.T)
    assert torch.equal(scores[:, 0], scores[:, 2])
    assert scores[:, :2].std(dim=0).min() > 0.01  # tells images apart,
    assert (scores[:, 0] - scores[:, 1]).abs().max() > 0.01  # and prompts


def test_each_prompt_is_encoded_once(scorer, monkeypatch):
    read, (task,) = [], scorer.tasks
    embed = task.embed_texts
    monkeypatch.setattr(task, "embed_texts", lambda texts: read.extend(texts) or embed(texts))
    first = scorer.texts(PROMPTS)
    again = scorer.texts(["zebra", *PROMPTS])
    assert read == ["a red circle", "a blue square", "zebra"]
    assert torch.equal(first, again[1:])


def test_large_batches_are_scored_in_parts(scorer, monkeypatch):
    together = scorer.images(pictures(5))
    counts = []
    monkeypatch.setattr(scorer_module, "BATCH", 2)
    torch.testing.assert_close(scorer.images(pictures(5), counts.append), together)
    assert counts == [2, 2, 1]


@packs
def test_images_are_scored_with_prepacked_weights(scorer, used, monkeypatch):
    batch = pictures(5)
    found = scorer.images(batch)
    assert used
    assert scorer.prepacked_bytes() > 0
    used.clear()
    torch.testing.assert_close(found, scorer._embed(batch), rtol=1e-4, atol=1e-5)
    assert not used
    offloading = Scorer(replace(CPU, offload=True), scorer.files["reranker"].as_posix())
    torch.testing.assert_close(offloading.images(batch), found, rtol=1e-4, atol=1e-5)
    assert not used
    assert offloading.prepacked_bytes() == 0


@packs
def test_memory_budget_leaves_space_for_prepacked_weights(scorer, used, monkeypatch):
    rooms = []
    monkeypatch.setattr(scorer_module, "free_memory", lambda device: 10_000_000)
    monkeypatch.setattr(scorer_module, "choose_batch_size", lambda work, wanted, most, room: rooms.append(room) or most)
    scorer.images(pictures(9))
    assert rooms == [int(scorer_module.MEMORY_FRACTION * 10_000_000) - scorer.prepacked_bytes()]


def test_images_are_resized_to_the_tower(scorer):
    batch = pictures(2, 16)
    large = batch.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)  # 128 px of squares
    near = scorer.images(large) @ scorer.images(batch).T
    assert near.diagonal().min() > 0.9
    assert near.diagonal().min() > near.fliplr().diagonal().max()


def test_files_are_cropped_and_resized(scorer, tmp_path):
    picture = Image.new("RGB", (10 * CLIP_SIZE, 5 * CLIP_SIZE), "white")
    picture.paste("red", (5 * CLIP_SIZE // 2, 0, 15 * CLIP_SIZE // 2, 5 * CLIP_SIZE // 2))  # above, in the middle
    picture.save(tmp_path / "wide.png")
    read = scorer.read(str(tmp_path / "wide.png"))
    assert read.shape == (3, CLIP_SIZE, CLIP_SIZE)
    half = CLIP_SIZE // 2
    red = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    assert (read[:, : half - 3, 3:-3] - red).abs().max() < 0.05
    assert read[:, half + 3 :].min() > 0.95


def test_other_checkpoints_are_refused(tiny):
    with pytest.raises(checkpoint.CheckpointError, match="holds a 'dvae', where a 'clip' or a 'noised-clip' is needed"):
        Scorer(CPU, tiny.dvae)


def test_noised_clip_scores_at_timestep_zero(glide):
    scorer = Scorer(CPU, glide.noised_clip)
    batch = pictures(3, scorer.size)
    task = checkpoint.load(glide.noised_clip)
    text = task.embed_texts(PROMPTS)
    with torch.no_grad():
        clean = task.score(text, batch, torch.zeros(3, dtype=torch.int64)) / task.model.logit_scale.exp()
    torch.testing.assert_close((scorer.images(batch) * scorer.texts(PROMPTS)).sum(dim=1), clean)


def test_several_models_are_averaged(tiny, glide):
    names = [tiny.clip, glide.noised_clip]
    both = Scorer(CPU, [*names, tiny.clip])  # named twice, it counts once
    batch = pictures(5, 2 * CLIP_SIZE)  # each reads it at its own size
    alone = [(one := Scorer(CPU, name)).images(batch) @ one.texts(PROMPTS).T for name in names]
    torch.testing.assert_close(both.images(batch) @ both.texts(PROMPTS).T, (alone[0] + alone[1]) / 2)
    assert both.size == CLIP_SIZE
    assert {key: str(path) for key, path in both.files.items()} == {"reranker": names[0], "reranker_2": names[1]}
