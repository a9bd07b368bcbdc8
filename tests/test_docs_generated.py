"""The generated pages of the documentation are those that the code gives."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()
PAGES = GENERATOR.pages()


@pytest.mark.parametrize("name", list(PAGES))
def test_page_is_up_to_date(name: str):
    committed = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert committed == PAGES[name], "run: python docs/generate.py"


def test_every_command_is_listed():
    page = PAGES["commands.md"]
    for name in GENERATOR.commands():
        assert f"### dalle {name}\n" in page


def test_every_command_with_json_has_its_fields():
    fields = GENERATOR.json_fields()
    for name, command in GENERATOR.commands().items():
        if name != "show" and any("--json" in one.opts for one in command.params):  # show prints a recipe
            assert fields.get(name), name


def test_table_escapes_pipes():
    assert GENERATOR.table(["a"], [["x|y"]]).endswith("| x\\|y |")


def test_every_recipe_key_has_a_meaning():
    rows = [line for line in PAGES["recipes.md"].splitlines() if line.startswith("| `")]
    assert not [row for row in rows if row.endswith("|  |")]
