import pytest

from dalle_cli.cli.lookup import known_recipes, locate
from dalle_cli.registry import RecipeError


def test_recipe_is_found_by_family_and_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert locate("clip/vit-b32") == ("clip", "vit-b32")
    assert locate("vit-b32") == ("clip", "vit-b32")
    assert locate("tiny", "dvae") == ("dvae", "tiny")
    assert locate("no-such-recipe") is None


def test_recipe_file_gets_its_family_from_its_folder(tmp_path):
    (tmp_path / "dvae").mkdir()
    inside, outside = tmp_path / "dvae" / "mine.yaml", tmp_path / "mine.yaml"
    for path in (inside, outside):
        path.write_text("extends: tiny\n")
    assert locate(str(inside)) == ("dvae", str(inside))
    with pytest.raises(RecipeError, match="Add --family"):
        locate(str(outside))
    assert locate(str(outside), "dvae") == ("dvae", str(outside))


@pytest.mark.parametrize(
    ("name", "family", "message"), [("tiny", None, "several families"), ("tiny", "dave", "did you mean 'dvae'")]
)
def test_ambiguous_names_are_refused(name, family, message):
    with pytest.raises(RecipeError, match=message):
        locate(name, family)


def test_all_recipes_are_known():
    assert {"dvae/tiny", "systems/dalle1"} <= set(known_recipes())
