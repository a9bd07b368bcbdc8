import pytest

from dalle_cli.generate.options import GenerationOptions, print_dry_run
from dalle_cli.registry import RecipeError


def test_sampling_options_are_checked_by_the_system(tiny):
    assert GenerationOptions(sampling={"top_k": 3, "top_p": None}).resolve(tiny.recipe).options.top_k == 3
    with pytest.raises(RecipeError, match="takes no 'steps'"):
        GenerationOptions(tiny.recipe, {"steps": "3"}).resolve("none")


def test_existing_files_are_an_error_unless_asked():
    assert not GenerationOptions().may_replace
    assert GenerationOptions(overwrite=True).may_replace
    assert GenerationOptions(skip_existing=True).may_replace


def test_dry_run_names_parts_and_options(tiny, capsys):
    print_dry_run(GenerationOptions(tiny.recipe).resolve(""), "2 files")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"system: {tiny.recipe}"
    assert [line.split(":")[0].strip() for line in lines[1:3]] == ["transformer", "reranker"]
    assert "temperature 0.9" in lines[3]
    assert lines[4] == "2 files"
