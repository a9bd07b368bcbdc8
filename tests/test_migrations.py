import json
from pathlib import Path

import pytest
import torch

from dalle_cli import checkpoint, migrations
from dalle_cli.data import sources
from dalle_cli.migrations import is_system_of_version_1, sampling_to_version_2, to_version_2

# Recipes as version 0.1 had them, one for each type of model and task, with every key that was renamed.
VERSION_1 = json.loads((Path(__file__).parent / "fixtures" / "recipes_version_1.json").read_text(encoding="utf-8"))
TRAINING = {name: node for name, node in VERSION_1.items() if "model" in node}
STARTERS = ("dvae", "clip", "noised-clip", "dalle", "prior", "prior-ar", "decoder", "upsampler")


def test_no_key_is_renamed_to_itself():
    tables = [value for name, value in vars(migrations).items() if name.endswith("_KEYS")]
    flat = [table for table in tables for table in (table.values() if _nested(table) else [table])]
    assert all(old != new for table in flat for old, new in table.items())


@pytest.mark.parametrize("name", TRAINING)
def test_old_training_recipes_become_valid(name):
    with pytest.raises(checkpoint.RecipeError):
        checkpoint.check(TRAINING[name])
    checkpoint.check(to_version_2(TRAINING[name]))


def test_every_renamed_key_is_in_a_tested_recipe():
    text = json.dumps(VERSION_1)
    for table in (migrations.MODEL_KEYS, migrations.TASK_KEYS):
        for kind, keys in table.items():
            for old in keys:
                assert f'"{old}":' in text, f"{kind}: {old}"


@pytest.mark.parametrize("name", STARTERS)
def test_shipped_starters_are_of_an_old_version_and_load(name):
    path = checkpoint.resolve(f"starter/{name}")
    header = checkpoint.read_header(path)["__metadata__"]
    assert header["version"] == "1"
    recipe = checkpoint.metadata(path)["recipe"]
    assert recipe == to_version_2(json.loads(header["recipe"])) != json.loads(header["recipe"])
    assert checkpoint.load_meta(f"starter/{name}").model is not None
    assert recipe["data"]["type"] in sources.names()


def test_data_optim_train_and_tracker_keys_are_renamed():
    shards = {"type": "shards", "path": "a", "caption": "json:title"}
    scenes = {"type": "scenes", "glyphs": "shapes", "kinds": {"single": 1}, "colour": 0.1, "scatter": False}
    old = {
        "data": {"type": "mixture", "sources": [shards, scenes], "weights": [1, 1], "captions": False, "workers": 0},
        "optim": {"lr": 1e-3, "warmup": 5, "final": 0.1, "clip_norm": 1.0},
        "train": {"steps": 3, "ema": 0.9, "keep": 2, "init": "x", "preview": 0, "accumulate": 2, "shard": True},
        "tracker": {"extras": ["wandb"]},
    }
    shards = {"type": "shards", "path": "a", "caption_column": "json:title"}
    weights = {"scene_weights": {"single": 1}, "color_prob": 0.1, "random_positions": False}
    sources = [shards, {"type": "scenes", "objects": "shapes", **weights}]
    assert to_version_2(old) == {
        "data": {
            "type": "mixture", "sources": sources, "weights": [1, 1], "require_captions": False, "num_workers": 0,
        },
        "optim": {"lr": 1e-3, "warmup_steps": 5, "final_lr_ratio": 0.1, "max_grad_norm": 1.0},
        "train": {
            "steps": 3, "ema_decay": 0.9, "keep_last": 2, "init_from": "x", "preview_images": 0,
            "grad_accum_steps": 2, "fsdp": True,
        },
        "tracker": {"report_to": ["wandb"]},
    }  # fmt: skip
    assert to_version_2({"data": {"type": "codes", "path": "x"}})["data"]["type"] == "image-tokens"


def test_nested_parts_and_names_of_parts_are_renamed():
    old = {"type": "last-step", "first": {"type": "unet", "patch": 2, "attention": [1]}, "last": {"type": "unet"}}
    assert to_version_2({"model": old})["model"] == {
        "type": "two-stage-unet",
        "first": {"type": "unet", "patch_size": 2, "attention_factors": [1]},
        "last": {"type": "unet"},
    }
    dalle = {"type": "dalle", "attention": "full", "codes": 5}  # whose attention is no list of factors
    assert to_version_2({"model": dalle})["model"] == {"type": "dalle", "attention": "full", "image_vocab_size": 5}


def test_migrating_leaves_the_old_recipe_as_it_is():
    before = json.dumps(VERSION_1)
    for recipe in VERSION_1.values():
        to_version_2(recipe)
    assert json.dumps(VERSION_1) == before


def test_the_clip_of_a_system_becomes_the_reranker_in_one_step():
    old = {
        "system": {"type": "unclip"},
        "parts": {"clip": "a", "embedder": "b"},
        "sample": {"scale": 3.0, "best_of": 2},
    }
    assert is_system_of_version_1(old)
    new = to_version_2(old)
    assert new["parts"] == {"reranker": "a", "clip": "b"}
    assert new["sample"] == {"guidance_scale": 3.0, "prior_samples": 2}
    assert not is_system_of_version_1(new)


@pytest.mark.parametrize("kind", ["glide", "dalle1"])
def test_a_system_without_an_embedder_is_recognized_by_its_clip(kind):
    old = {"system": {"type": kind}, "parts": {"clip": "a"}}
    assert is_system_of_version_1(old)
    assert not is_system_of_version_1(to_version_2(old))


def test_sampling_options_of_old_images_are_renamed():
    old = {"guide": "free", "scale": 3.0, "guided_at": [1, 9], "threshold": 0.9, "steps": "9"}
    assert sampling_to_version_2(old) == {
        "guidance": "cfg", "guidance_scale": 3.0, "guidance_interval": [1, 9], "dynamic_threshold": 0.9, "steps": "9"
    }  # fmt: skip


@pytest.mark.parametrize("recipe", [{"model": 5}, {"model": [1]}, {"model": {"type": 3}}, {"train": None}, {"x": {}}])
def test_what_is_no_recipe_passes_unchanged(recipe):
    assert to_version_2(recipe) == recipe


def test_a_run_of_version_1_loads_with_its_weights(tmp_path):
    node = {"type": "dvae", "vocab_size": 16, "n_hid": 8, "n_init": 8, "groups": 2, "num_res_blocks": 1}
    model = checkpoint.models.build(node)
    path = tmp_path / "model.safetensors"
    old = {"type": "dvae", "vocab": 16, "hidden": 8, "init": 8, "groups": 2, "blocks": 1}
    checkpoint.save(path, model.state_dict(), {"model": old, "task": {"type": "dvae", "kl": 1.0}})
    as_version_1(path)
    task = checkpoint.load(str(path), "dvae")
    assert task.kl_weight == 1.0
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in task.model.state_dict().items())


def as_version_1(path: Path) -> None:
    """Write the file again with the number of version 1 in its header, of the same length, and its seal."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    metadata = header["__metadata__"] | {"version": "1"}
    header["__metadata__"] = metadata | {"seal": checkpoint._seal({k: v for k, v in metadata.items() if k != "seal"})}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def _nested(table):
    return bool(table) and all(isinstance(value, dict) for value in table.values())
