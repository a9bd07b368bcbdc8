from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from dalle_cli import checkpoint, recipe
from dalle_cli.recipe import RecipeError
from dalle_cli.training import options

BASE = """
# The base of the tests.
model: {type: dvae, vocab_size: 16, n_hid: 8, n_init: 8, groups: 2, num_res_blocks: 1}
task: {type: dvae}
data: {type: folder, path: photos, size: 16, flip: true}
optim: {lr: 1.0e-3, betas: [0.9, 0.99]}
train: {steps: 6, batch_size: 8}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DALLE_DATA", raising=False)
    write("base.yaml", BASE)
    return tmp_path


def write(name, text):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def load(name="base.yaml", *overrides, family="dvae", **options):
    return recipe.load(name, family, overrides, checkpoint.accepted_arguments, **options)


# ---- finding ---------------------------------------------------------------------------------------------------------


def test_lookup_order(here):
    assert load("base.yaml")["train"]["steps"] == 6
    packaged = load("tiny")
    write("recipes/dvae/tiny.yaml", BASE)
    assert load("tiny") == load("base.yaml") != packaged


def test_names_of_a_family(here):
    write("recipes/dvae/mine.yaml", BASE)
    write("recipes/dvae/_base.yaml", BASE)
    assert {"mine", "tiny", "starter", "openai"} <= set(recipe.names("dvae"))
    assert "_base" not in recipe.names("dvae")
    assert recipe.headline(Path("recipes/dvae/mine.yaml")) == ""
    assert recipe.headline(Path(write("x.yaml", "# A title.\nmodel: {}"))) == "A title."


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tny", "no dvae recipe 'tny' (did you mean 'tiny'?)"),
        ("none.yaml", "no recipe file none.yaml"),
        ("there/none", "no recipe file there/none"),
        ("vit-b32", "recipe 'vit-b32' is of `dalle train-clip`, not of `dalle train-dvae`"),
        ("_base", "no dvae recipe '_base'"),
    ],
)
def test_unknown_name_gets_a_remedy(here, name, message):
    with pytest.raises(RecipeError) as error:
        load(name)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "not valid YAML"),
        ("model: {a: 1, a: 2}", "not valid YAML"),
        ("- a\n- b", "a mapping of sections"),
        ("just words", "no section 'just words'"),
        ("model: ${nowhere}", "nowhere"),
        ("modle: {}", "no section 'modle' (did you mean 'model'?)"),
        ("extends: ???", "extends"),
        ("extends: [a, b]", "extends names one file"),
        ("extends: none.yaml", "extends none.yaml, which does not exist"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_invalid_file_is_named(here, text, message):
    write("bad.yaml", text)
    with pytest.raises(RecipeError) as error:
        load("bad.yaml")
    assert message in str(error.value)
    assert "bad" in str(error.value)
    assert "\n" not in str(error.value)


def test_binary_file_is_named(here):
    Path("bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"^bad\.yaml: not a text file"):
        load("bad.yaml")


# ---- extends ---------------------------------------------------------------------------------------------------------


def test_child_is_merged_over_parents(here):
    write("middle.yaml", "extends: base.yaml\ntrain: {steps: 7, ema_decay: 0.5}")
    write("child.yaml", "extends: middle.yaml\ntrain: {steps: 8}\noptim: {betas: [0.5, 0.5]}")
    found = load("child.yaml")
    assert found["train"] == {"steps": 8, "batch_size": 8, "ema_decay": 0.5}
    assert found["optim"] == {"lr": 1e-3, "betas": [0.5, 0.5]}
    assert "extends" not in found


def test_other_type_inherits_nothing(here):
    write("child.yaml", "extends: base.yaml\ndata: {type: scenes, size: 32}")
    assert load("child.yaml")["data"] == {"type": "scenes", "size": 32}
    write("same.yaml", "extends: base.yaml\ndata: {type: folder, size: 32}")
    assert load("same.yaml")["data"] == {"type": "folder", "path": "photos", "size": 32, "flip": True}


def test_nor_does_one_inside_another(here):
    write("two.yaml", "model: {type: clip, image: {type: vit, patch_size: 8}, text: {type: clip-text, vocab_size: 9}}")
    write("child.yaml", "extends: two.yaml\nmodel: {image: {type: modified-resnet, heads: 4}, text: {depth: 1}}")
    model = load("child.yaml", family="clip")["model"]
    assert model["image"] == {"type": "modified-resnet", "heads": 4}
    assert model["text"] == {"type": "clip-text", "vocab_size": 9, "depth": 1}


def test_mapping_argument_is_replaced(here):
    """Weights by name that a child or an override does not give are not the parent's; a part's arguments are."""
    scenes = "data: {type: scenes, size: 16, scene_weights: {single: 4, pair: 2}}"
    write("parent.yaml", f"model: {{type: clip, image: {{type: vit, size: 16}}}}\n{scenes}")
    child = write(
        "child.yaml", "extends: parent.yaml\nmodel: {image: {patch_size: 8}}\ndata: {scene_weights: {sign: 1}}"
    )
    found = load(child, complete=False)
    assert found["data"] == {"type": "scenes", "size": 16, "scene_weights": {"sign": 1}}
    assert found["model"]["image"] == {"type": "vit", "size": 16, "patch_size": 8}
    assert load("parent.yaml", "data.scene_weights={sign: 1}", complete=False)["data"]["scene_weights"] == {"sign": "1"}
    assert load("parent.yaml", "data.scene_weights.pair=0", complete=False)["data"]["scene_weights"] == {
        "single": 4,
        "pair": "0",
    }
    assert load("parent.yaml", "model.image={patch_size: 8}", complete=False)["model"]["image"]["size"] == 16


def test_extends_finds_packaged_recipes(here):
    write("mine.yaml", "extends: tiny.yaml\ntrain: {steps: 5}")
    assert load("mine.yaml")["model"] == load("tiny")["model"]
    write("recipes/dvae/tiny.yaml", "extends: tiny.yaml\ntrain: {steps: 5}")  # its namesake of the package
    assert load("tiny")["model"]["type"] == "dvae"
    assert load("tiny")["train"]["steps"] == 5


@pytest.mark.parametrize("chain", ["a", "ab", "abc"])
def test_circular_extends_is_refused(here, chain):
    for one, next_one in zip(chain, chain[1:] + chain[0]):
        write(f"{one}.yaml", f"extends: {next_one}.yaml")
    with pytest.raises(RecipeError, match="extends goes in a circle"):
        load("a.yaml")


def test_interpolations_see_what_was_overridden(here):
    write("child.yaml", "extends: base.yaml\nmodel: {n_init: '${model.n_hid}'}")
    assert load("child.yaml", "model.n_hid=12")["model"]["n_init"] == "12"


# ---- overrides -------------------------------------------------------------------------------------------------------


def test_overrides_are_typed_by_the_signature(here):
    words = ("model.n_hid=010", "optim.lr=1e-4", "optim.betas=[0.5, 0.9]", "model.gain=null", "train.steps=1e3")
    found = options.check(load("base.yaml", *words, "data.type=scenes", "data.samples=0100", "data.flip=False"))
    assert found["model"]["n_hid"] == 10
    assert found["model"]["gain"] is None
    assert found["optim"] == {"lr": 1e-4, "betas": [0.5, 0.9]}
    assert found["train"]["steps"] == 1000
    assert found["data"] == {"type": "scenes", "samples": 100, "size": 16, "flip": False}


def test_values_may_contain_syntax_characters(here):
    found = load("base.yaml", "data.path=a=b.c,[d] e", "tracker.project=no")
    assert found["data"]["path"] == "a=b.c,[d] e"
    assert options.check(found)["tracker"]["project"] == "no"


def test_overrides_add_sections_and_go_into_lists(here):
    found = load("base.yaml", "tokenizer={type: dalle, path: x}", "frozen.dvae=here", "optim.betas.0=0.5")
    assert found["tokenizer"] == {"type": "dalle", "path": "x"}
    assert found["frozen"] == {"dvae": "here"}
    assert options.options(found)[0].betas == [0.5, 0.99]


def test_type_change_drops_and_logs_arguments(here):
    said = []
    found = load("base.yaml", "data.type=scenes", say=said.append)
    assert found["data"] == {"type": "scenes", "size": 16, "flip": True}
    assert said == ["data.type=scenes: dropped path, which 'scenes' does not take"]
    assert load("base.yaml", "data.type=folder", say=pytest.fail)["data"] == load()["data"]


def test_overrides_after_type_change_are_checked(here):
    found = load("base.yaml", "data.type=scenes", "data.path=x")
    with pytest.raises(RecipeError, match=r"^data\.path: data 'scenes' takes no 'path'"):
        options.check(found)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optm.lr=1", "optm.lr: no section 'optm' (did you mean 'optim'?)"),
        ("optim.lr", "'optim.lr' is not an override; write key=value, such as optim.lr=1e-4"),
        ("=5", "'=5' is not an override"),
        ("data.type=folde", "data.type: no data 'folde' (did you mean 'folder'?)"),
        ("train=[1]", "train: cannot be set"),
        ("optim.betas=[1, 2", "optim.betas: cannot be set"),
        ("optim.betas.7=1", "optim.betas.7: cannot be set"),
        ("data.path=${nowhere}", "base: "),
    ],
)
def test_invalid_override_is_named(here, word, message):
    with pytest.raises(RecipeError) as error:
        load("base.yaml", word)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.widht=1", "model.widht: model 'dvae' takes no 'widht'"),
        ("task.temprature=1", "task.temprature: task 'dvae' takes no 'temprature' (did you mean 'temperature'?)"),
        ("data.flp=true", "data.flp: data 'folder' takes no 'flp' (did you mean 'flip'?)"),
        ("optim.lrr=1", "optim.lrr: optim takes no 'lrr' (did you mean 'lr'?)"),
        ("train.stps=1", "train.stps: train takes no 'stps' (did you mean 'steps'?)"),
        ("tracker.projekt=1", "tracker.projekt: tracker takes no 'projekt' (did you mean 'project'?)"),
        ("tokenizer.type=dale", "tokenizer.type: no tokenizer 'dale' (did you mean 'dalle'?)"),
        ("frozen.clip=x", "frozen.clip: task 'dvae' takes no 'clip'"),
        (
            "tracker.report_to=[tensorbord]",
            "tracker.report_to.0: 'tensorbord' is not one of tensorboard, wandb",
        ),
        (
            "optim.schedule=cosin",
            "optim.schedule: 'cosin' is not one of constant, cosine, linear",
        ),
        ("train.precision=bf32", "train.precision: 'bf32' is not one of auto, float32, bf16, fp16"),
        ("model.vocab_size=many", "model.vocab_size: expected a whole number, got 'many'"),
        ("model=5", "model: expected a mapping with a type"),
        ("task=null", "task: expected a mapping with a type"),
        ("data=here", "data: expected a mapping with a type"),
        ("optim=5", "optim: expected a mapping"),
        ("train=x", "train: expected a mapping"),
        ("model.n_hid.deep=1", "model.n_hid: expected a whole number"),
        ("frozen=5", "frozen: expected a mapping"),
        ("tracker=wandb", "tracker: expected a mapping"),
        ("tokenizer=clip", "tokenizer: expected a mapping with a type"),
        ("optim.lr=-1", "optim.lr: -1.0 is not a positive number"),
        ("optim.lr=nan", "optim.lr: expected a number, got 'nan'"),
        ("optim.max_grad_norm=-1", "optim.max_grad_norm: -1.0 must be a number"),
        ("optim.betas=[0.9]", "optim.betas: [0.9] are not two numbers"),
        ("train.batch_size=0", "train.batch_size: 0 is not between 1 and"),
        ("train.ema_decay=1", "train.ema_decay: 1.0 is not in [0, 1)"),
        ("train.save_every=soon", "train.save_every: 'soon' is not a time such as 30s, 10m or 3h50m"),
        ("train.save_every=0", "train.save_every: 0 never saves"),
    ],
)
def test_typos_are_named_with_their_path(here, word, message):
    with pytest.raises(RecipeError) as error:
        options.check(load("base.yaml", word))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


LINE = st.characters(exclude_categories=["C", "Z"]) | st.just(" ")  # the command line shows the rest as escapes


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(LINE, max_size=20),
            st.builds(
                "{}.{}={}".format,
                st.sampled_from(recipe.TRAINING),
                st.sampled_from(["type", "lr", "path", "a.b", "0", "betas.0", "steps", ".", ""])
                | st.text(LINE, max_size=5),
                st.sampled_from(["", "1", "null", "[", "[1]", "{a: 1}", "{type: vit}", "${", "???"])
                | st.text(LINE, max_size=9),
            ),
        ),
        max_size=3,
    )
)
def test_any_words_give_a_recipe_or_an_error(tmp_path_factory, words):
    path = tmp_path_factory.getbasetemp() / "base.yaml"
    path.write_text(BASE)
    try:
        options.check(load(str(path), *words))
        message = "fine"
    except RecipeError as error:
        message = str(error)
    assert message
    assert len(message.splitlines()) == 1


# ---- what is left open -----------------------------------------------------------------------------------------------


def test_missing_values_are_named(here):
    write("open.yaml", "model:\n  vocab_size: ???\ntrain:\n  steps: ???")
    with pytest.raises(RecipeError, match=r"^open: give model\.vocab_size=\.\.\., train\.steps=\.\.\.$"):
        load("open.yaml")
    assert load("open.yaml", "model.vocab_size=5", "train.steps=6")["model"]["vocab_size"] == "5"
    assert load("open.yaml", complete=False)["train"]["steps"] == "???"


@pytest.mark.parametrize("path", ["???", "${oc.env:DALLE_DATA,null}"])
def test_missing_data_names_all_remedies(here, path, monkeypatch):
    write("open.yaml", f"data:\n  type: folder\n  path: {path}")
    with pytest.raises(RecipeError) as error:
        load("open.yaml")
    for way in ("data.path=", "DALLE_DATA", "data.type=scenes"):
        assert way in str(error.value)
    assert load("open.yaml", "data.path=here")["data"]["path"] == "here"
    assert "path" not in load("open.yaml", "data.type=scenes")["data"]
    if "DALLE_DATA" in path:
        monkeypatch.setenv("DALLE_DATA", "/data/pairs")
        assert load("open.yaml")["data"]["path"] == "/data/pairs"


@pytest.mark.parametrize("family", ["dvae", "clip", "prior"])
def test_data_from_the_environment(here, family, monkeypatch):
    monkeypatch.setenv("DALLE_DATA", "/data/pairs")
    needy = []
    for name in recipe.names(family):
        given = ["frozen.dvae=x", "frozen.clip=x", "tokenizer.path=x"] if family == "prior" else []
        node = recipe.load(name, family, given)["data"]
        if "path" in node:
            needy.append(name)
            assert node["path"] == "/data/pairs", name
    assert needy


# ---- as text ---------------------------------------------------------------------------------------------------------


def test_a_recipe_survives_its_text(here):
    found = options.check(load("base.yaml", "data.path=a: b #c", "tracker.project=010"))
    Path("out.yaml").write_text(recipe.to_yaml(found))
    assert OmegaConf.to_container(OmegaConf.load("out.yaml")) == found


def test_differences_name_every_value():
    old = {"a": {"b": 1, "c": [1, 2]}, "d": None, "same": {"x": 1.0}}
    new = {"a": {"b": 2, "c": [1, 3]}, "e": {"f": "g"}, "same": {"x": 1}}
    assert recipe.differences(old, new) == ["a.b: 1 -> 2", "a.c: [1, 2] -> [1, 3]", "e: None -> {'f': 'g'}"]
    assert recipe.differences(old, old) == []


def test_recipe_is_found_by_family_and_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert recipe.locate("clip/vit-b32") == ("clip", "vit-b32")
    assert recipe.locate("vit-b32") == ("clip", "vit-b32")
    assert recipe.locate("tiny", "dvae") == ("dvae", "tiny")
    assert recipe.locate("no-such-recipe") is None


def test_recipe_file_gets_its_family_from_its_folder(tmp_path):
    (tmp_path / "dvae").mkdir()
    inside, outside = tmp_path / "dvae" / "mine.yaml", tmp_path / "mine.yaml"
    for path in (inside, outside):
        path.write_text("extends: tiny\n")
    assert recipe.locate(str(inside)) == ("dvae", str(inside))
    with pytest.raises(RecipeError, match="Add --family"):
        recipe.locate(str(outside))
    assert recipe.locate(str(outside), "dvae") == ("dvae", str(outside))


@pytest.mark.parametrize(
    ("name", "family", "message"), [("tiny", None, "several families"), ("tiny", "dave", "did you mean 'dvae'")]
)
def test_ambiguous_names_are_refused(name, family, message):
    with pytest.raises(RecipeError, match=message):
        recipe.locate(name, family)


def test_all_recipes_are_known():
    assert {"dvae/tiny", "systems/dalle1"} <= set(recipe.all_names())


def test_imported_system_of_an_old_version_is_migrated(tmp_path):
    old = "system: {type: unclip}\nparts: {embedder: ./clip, clip: ./clip, decoder: ./decoder}\nsample: {scale: 8.0}\n"
    for name in ("system.yaml", "inpaint.yaml"):
        (tmp_path / name).write_text(old)
        loaded = recipe.load(str(tmp_path / name), "systems", ["sample.guidance_scale=2"])
        assert loaded["parts"] == {"clip": "./clip", "reranker": "./clip", "decoder": "./decoder"}
        assert loaded["sample"] == {"guidance_scale": "2"}
    (tmp_path / "mine.yaml").write_text(old)
    assert "embedder" in recipe.load(str(tmp_path / "mine.yaml"), "systems")["parts"]  # and is refused when bound
