import pytest

from dalle_cli.data import loader
from dalle_cli.exits import Failure
from dalle_cli.registry import RecipeError
from dalle_cli.training import options, preflight
from dalle_cli.training.compose_meta import compose_meta

SCENES = {"type": "scenes", "objects": "shapes", "size": 32, "samples": 300, "val_samples": 14}
CLIP = {"type": "clip", "image": {"type": "vit", "size": 32}}
MIB = 1 << 20


def settings(**values):
    return options.Train(**{"steps": 10, "batch_size": 16, **values})


@pytest.mark.parametrize(
    ("recipe", "key"),
    [
        ({"model": CLIP, "task": {"type": "clip"}, "data": {**SCENES, "size": 64}}, "model.image.size=64"),
        ({"model": {"type": "unet"}, "task": {"type": "decoder", "size": 32}, "data": {**SCENES, "size": 64}},
         "task.size=64"),
        ({"model": {"type": "classifier", "size": 32}, "task": {}, "data": {**SCENES, "size": 64}}, "model.size=64"),
    ],
)  # fmt: skip
def test_other_image_sizes_are_refused_with_both_remedies(recipe, key):
    with pytest.raises(RecipeError, match=rf"images of 64 px for a model of 32 px .*set data\.size=32, or {key}"):
        preflight.check_sizes(recipe)


def test_equal_sizes_and_data_without_images_pass():
    preflight.check_sizes({"model": CLIP, "task": {"type": "clip"}, "data": SCENES})
    preflight.check_sizes({"model": CLIP, "task": {}, "data": {"type": "embeddings", "path": "x", "size": 64}})


def test_images_of_a_frozen_clip_may_be_larger_than_those_of_the_decoder():
    recipe = {
        "model": {"type": "unet"},
        "task": {"type": "decoder", "size": 64},
        "data": {"type": "folder", "size": 224},
    }
    preflight.check_sizes({**recipe, "frozen": {"clip": "clip-vit-l14"}})
    with pytest.raises(RecipeError, match=r"set data\.size=64"):
        preflight.check_sizes(recipe)


def test_batch_larger_than_the_data_is_refused():
    data = loader.build(SCENES)
    preflight.check_batch(data, settings(batch_size=286))
    with pytest.raises(RecipeError, match=r"20000 exceeds the 286 training samples \(14 more .*batch_size=143 or less"):
        preflight.check_batch(data, settings(batch_size=20000))


def test_absurd_number_of_epochs_is_said():
    data = loader.build(SCENES)
    assert preflight.epochs_warning(data, settings(steps=100)) is None
    line = preflight.epochs_warning(data, settings(steps=10**6))
    assert line.startswith("warning: 55,944 epochs")
    assert "train.steps=1787 makes 100 epochs" in line


def test_training_over_the_free_memory_is_refused_with_a_remedy(recipe, monkeypatch):
    checked = recipe(train={"batch_size": 256})
    task = compose_meta(checked, []).task
    needed, _ = preflight.per_process(task, checked, 1, "cpu")
    monkeypatch.setattr(preflight, "free_memory", lambda device: needed["total"] + MIB)
    assert preflight.check_memory(compose_meta(checked, []).task, checked, 1, "cpu") == needed
    monkeypatch.setattr(preflight, "free_memory", lambda device: needed["total"] - needed["step"] // 2)
    with pytest.raises(Failure, match=r"needs about .* GiB are free: set train\.grad_accum_steps=2 .*--ignore-memory"):
        preflight.check_memory(compose_meta(checked, []).task, checked, 1, "cpu")
    monkeypatch.setattr(preflight, "free_memory", lambda device: MIB)
    with pytest.raises(Failure, match="even one sample at a time does not fit"):
        preflight.check_memory(compose_meta(checked, []).task, checked, 1, "cpu")


def test_processes_on_a_cpu_share_its_memory(recipe, monkeypatch):
    checked = recipe()
    needed, _ = preflight.per_process(compose_meta(checked, []).task, checked, 2, "cpu")
    monkeypatch.setattr(preflight, "free_memory", lambda device: needed["total"] + MIB)
    with pytest.raises(Failure, match="training needs about"):
        preflight.check_memory(compose_meta(checked, []).task, checked, 2, "cpu")
