import pytest

from dalle_cli import recipe
from dalle_cli.cli.explain import COMMON, explain, lines


def rows(name, family):
    return {row["key"]: row for row in explain(recipe.load(name, family, complete=False))}


def test_nested_parts_are_explained():
    keys = rows("tiny", "clip")
    assert keys["model.image.type"]["value"] == "vit"
    assert keys["model.text.depth"]["value"] == 2
    conditions = [key for key in rows("glide-tiny", "decoder") if key.startswith("model.conditions.")]
    assert any(key.endswith(".type") for key in conditions)


def test_frozen_models_and_parts_are_checkpoints():
    assert rows("glide-starter", "decoder")["frozen.clip"]["type"] == "checkpoint"
    assert rows("unclip", "systems")["parts.prior"]["set"]


def test_row_is_two_lines():
    first, second = lines(rows("tiny", "clip")["train.log_every"])
    assert first == "train.log_every  (integer, default 50)"
    assert second == "" or second.startswith("    ")


@pytest.mark.parametrize("name", recipe.all_names())
def test_every_key_has_a_sentence(name):
    family, _, name = name.partition("/")
    missing = [row["key"] for row in explain(recipe.load(name, family, complete=False)) if not row["help"]]
    assert missing == []


def test_common_keys_exist():
    """A sentence for a key that no part has is left over."""
    names = {key.rpartition(".")[2] for each in recipe.all_names() for key in rows(*each.split("/")[::-1])}
    assert set(COMMON) <= names
