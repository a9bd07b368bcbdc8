import json

import pytest

from dalle_cli import __version__, checkpoint, recipe
from dalle_cli.data.scenes import objects
from dalle_cli.models import models
from tests.cli.conftest import one_line


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_all_recipes_are_listed(dalle):
    ended = dalle("recipes")
    assert ended.code == 0
    listed = {row["recipe"]: row for row in ended.results}
    assert set(listed) == {f"{family}/{name}" for family in recipe.FAMILIES for name in recipe.names(family)}
    assert listed["clip/vit-b32"]["command"] == "dalle train-clip --recipe vit-b32"
    assert "151.3M" in listed["clip/vit-b32"]["summary"]
    assert all(row["summary"] for row in listed.values())


def test_user_recipes_of_a_family_are_listed(dalle, tmp_path):
    write(tmp_path / "recipes/clip/mine.yaml", "# Mine, \x1b[31mred.\nextends: tiny.yaml\n")
    rows = dalle("recipes", "clip").results
    assert {row["recipe"].split("/")[0] for row in rows} == {"clip"}
    assert {"recipe": "clip/mine", "path": "recipes/clip/mine.yaml"}.items() <= next(
        row.items() for row in rows if "mine" in row["recipe"]
    )
    shown = dalle("recipes", "clip", terminal=True).out.splitlines()
    assert any(line.startswith("clip/mine ") and line.endswith("Mine, ?[31mred.") for line in shown)
    assert max(map(len, shown)) <= 100


def test_unknown_family_gets_a_suggestion(dalle):
    ended = dalle("recipes", "clp")
    assert (ended.code, ended.err) == (2, "dalle: no family 'clp' (did you mean 'clip'?)\n")


def test_show_resolves_inheritance_and_overrides(dalle, tmp_path):
    shown = dalle("show", "clip/vit-b32", "optim.lr=1e-4", "data.path=pairs")
    file = write(tmp_path / "again.yaml", shown.out)
    assert recipe.load(str(file), "clip") == recipe.load("vit-b32", "clip", ["optim.lr=1e-4", "data.path=pairs"])
    assert json.loads(dalle("show", "clip/vit-b32", "optim.lr=1e-4", "data.path=pairs", "--json").out) == recipe.load(
        str(file), "clip"
    )


def test_show_keeps_open_values(dalle, monkeypatch):
    assert "  path: ???\n" in dalle("show", "prior/dalle1-12b").out
    assert json.loads(dalle("show", "dvae/openai", "--json").out)["data"]["path"] is None
    monkeypatch.setenv("DALLE_DATA", "/data/pairs")
    assert json.loads(dalle("show", "dvae/openai", "--json").out)["data"]["path"] == "/data/pairs"


def test_ambiguous_names_need_a_family(dalle):
    ended = dalle("show", "tiny")
    assert ended.code == 2
    assert one_line(ended.err)
    assert "clip/tiny" in ended.err
    assert dalle("show", "tiny", "--family", "clip").out == dalle("show", "clip/tiny").out
    assert dalle("show", "vit-b16").out == dalle("show", "clip/vit-b16").out


def test_family_of_a_file(dalle, tmp_path):
    write(tmp_path / "dvae/mine.yaml", "model: {type: dvae}\n")
    write(tmp_path / "loose.yaml", "model: {type: dvae}\n")
    assert dalle("show", "dvae/mine.yaml").out == "model:\n  type: dvae\n"
    refused = dalle("show", "loose.yaml")
    assert (refused.code, one_line(refused.err)) == (2, True)
    assert "--family" in refused.err
    assert dalle("show", "loose.yaml", "--family", "dvae").out == "model:\n  type: dvae\n"
    assert dalle("show", "none.yaml").err == "dalle: no recipe file none.yaml\n"


def test_show_a_checkpoint(dalle, tmp_path):
    carried = {"model": {"type": "dvae", "vocab_size": 8, "n_hid": 4, "n_init": 4, "groups": 1, "num_res_blocks": 1}}
    weights = models.build(carried["model"]).state_dict()
    checkpoint.save(tmp_path / "checkpoints/run/model.safetensors", weights, carried)
    assert json.loads(dalle("show", "run", "--json").out) == carried
    refused = dalle("show", "run", "model.vocab_size=16")
    assert (refused.code, one_line(refused.err)) == (2, True)


def test_unknown_recipe_gets_a_suggestion(dalle):
    ended = dalle("show", "clip/vit-b3")
    assert (ended.code, "did you mean 'vit-b32'?" in ended.err) == (2, True)
    ended = dalle("show", "vit-b3")
    assert (ended.code, "did you mean 'clip/vit-b32'?" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optm.lr=1", "did you mean 'optim'?"),
        ("optim.lr", "write key=value"),
        ("optim.lr=abc", "optim.lr: expected a number"),
        ("model.image.widht=3", "model 'vit' takes no 'widht' (did you mean 'width'?)"),
        ("data.sise=3", "did you mean 'size'?"),
    ],
)
def test_overrides_are_checked(dalle, word, message):
    ended = dalle("show", "clip/tiny", word)
    assert (ended.code, one_line(ended.err)) == (2, True)
    assert message in ended.err


def test_recipes_say_which_systems_can_generate(dalle, tmp_path):
    rows = {row["recipe"]: row for row in dalle("recipes", "systems").results}
    assert (rows["systems/dalle1"]["ready"], rows["systems/dalle1"]["missing"]) == (True, [])
    untrained = rows["systems/dalle1-tiny"]
    assert not untrained["ready"]
    assert "checkpoints/clip-tiny" in untrained["missing"]
    shown = dalle("recipes", "systems", terminal=True).out.splitlines()
    assert next(line for line in shown if line.startswith("systems/dalle1 ")).split()[1] == "ready"
    assert "not trained" in next(line for line in shown if line.startswith("systems/dalle1-tiny "))
    assert all(row["ready"] is None for row in dalle("recipes", "clip").results)


def test_explain_describes_every_key(dalle):
    rows = {row["key"]: row for row in dalle("show", "clip/tiny", "--explain", "--json").results}
    steps = rows["train.steps"]
    assert (steps["type"], steps["required"], steps["value"], steps["set"]) == ("integer", True, 400, True)
    assert rows["train.log_every"]["default"] == 50
    assert not rows["train.log_every"]["set"]
    assert rows["model.image.width"]["help"] == "Channels of the hidden states."
    assert rows["data.size"]["value"] == 32
    assert "task.model" not in rows
    shown = dalle("show", "clip/tiny", "--explain", terminal=True).out
    assert "train.steps = 400  (integer, required)\n" in shown
    changed = dalle("show", "clip/tiny", "train.steps=7", "--explain", terminal=True).out
    assert "train.steps = 7  (integer, required)\n" in changed


@pytest.mark.parametrize("name", ["systems/glide", "tokenizer/tiny", "decoder/glide-tiny", "data/none"])
def test_explain_reads_every_family(dalle, name):
    ended = dalle("show", name, "--explain", "--json")
    if name == "data/none":
        assert ended.code == 2
        return
    keys = [row["key"] for row in ended.results]
    assert len(keys) == len(set(keys)) > 5
    assert {"systems": "sample.steps", "tokenizer": "learn.", "decoder": "frozen."}[name.split("/")[0]]


def test_env_lists_versions_and_devices(dalle, monkeypatch):
    import torch

    monkeypatch.setenv("DALLE_TEST", "x")
    found = dalle("env").result
    assert (found["dalle"], found["torch"]) == (__version__, torch.__version__)
    assert found["threads"] == torch.get_num_threads()
    assert found["devices"][-1].startswith("cpu")
    assert found["variables"] == {"DALLE_TEST": "x"}
    assert found["processes"] == 1


def test_env_lists_what_is_missing(dalle, monkeypatch):
    monkeypatch.setattr(objects, "FONTS", ())
    monkeypatch.delenv("DALLE_EMOJI_FONT", raising=False)
    objects.font.cache_clear()
    try:
        assert dalle("env").result["emoji_font"] is None
        shown = dalle("env", terminal=True).out
    finally:
        objects.font.cache_clear()
    assert "emoji_font   none: use data.objects=shapes, or install fonts-noto-color-emoji" in shown.splitlines()
