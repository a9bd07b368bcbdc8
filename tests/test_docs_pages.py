"""The pages of the documentation: links, names in the text, sizes, and what each must hold."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from dalle_cli.data.scenes import objects
from tests.fixtures.docs import PAGE_IDS, PAGES, ROOT, inline, prose, root_command

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [path for path in PAGES if (ROOT / "docs") in path.parents]
FOREIGN_OPTIONS = {"--no-index", "--nproc_per_node", "--cpu", "--num_processes", "--requeue", "--index-url"}


def _anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_links_lead_somewhere(path: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        assert not anchor or anchor in _anchors(linked), target


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_page_opens_with_its_purpose_and_a_command(path: Path):
    text = path.read_text(encoding="utf-8")
    title, _, rest = text.partition("\n\n")
    assert title.startswith("# ")
    assert not rest.startswith(("#", "```", "|")), "no sentence below the title"
    opening = rest.partition("\n## ")[0]
    assert "```sh\n" in opening or "```python\n" in opening or path.name == "troubleshooting.md"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    listed = set(re.findall(r"([\w/-]+\.md)", navigation))
    assert listed == {str(path.relative_to(ROOT / "docs")) for path in DOCS}


def test_readme_is_short():
    assert len(README.split()) <= 1000


def test_images_are_small():
    for path in (ROOT / "docs/images").iterdir():
        assert path.stat().st_size < 300_000, path


def test_every_starter_file_has_a_model_card():
    index = (ROOT / "docs/model-cards/README.md").read_text(encoding="utf-8")
    for path in (ROOT / "dalle_cli/starter").iterdir():
        card = ROOT / "docs/model-cards" / f"{path.stem}.md"
        assert f"[{path.name}]({card.name})" in index
        text = card.read_text(encoding="utf-8")
        for part in ("**Data**", "**Training**", "**Limits**"):
            assert part in text, f"{card.name}: {part}"
        assert "**Reproduce**" in text or "gives the same file" in text


def test_objects_are_named():
    text = " ".join((ROOT / "docs/data.md").read_text(encoding="utf-8").split())
    for name in objects.load_object_set("everyday").names:
        assert name in text, name


@cache
def _options() -> set[str]:
    def walk(command) -> set[str]:
        own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        return own.union(*(walk(one) for one in getattr(command, "commands", {}).values()))

    return walk(root_command()) | FOREIGN_OPTIONS | {"--help"}


@pytest.mark.parametrize("path", [path for path in PAGES if path.name != "CHANGELOG.md"], ids=lambda path: path.name)
def test_options_in_the_text_exist(path: Path):
    for code in inline(path.read_text(encoding="utf-8")):
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code):
            assert option in _options(), f"{option} in `{code}`"


@cache
def _keys() -> set[str]:
    """Every `section.key` of the schema, nested keys of models by their last name."""
    from dalle_cli import data, tasks, text
    from dalle_cli.data.section import Loading
    from dalle_cli.models import models
    from dalle_cli.registry import documented_keys
    from dalle_cli.systems import systems
    from dalle_cli.training import options, vocabulary

    found = set()
    for section, registry in (
        ("model", models), ("task", tasks.tasks), ("data", data.sources), ("tokenizer", text.tokenizers),
    ):  # fmt: skip
        for name in registry.names():
            found |= {f"{section}.{key.name}" for key in documented_keys(registry.get(name))}
    found |= {f"data.{key.name}" for key in documented_keys(Loading)}
    for section, kind in {**options.SECTIONS, "learn": vocabulary.Learn}.items():
        found |= {f"{section}.{key.name}" for key in documented_keys(kind)}
    for name in systems.names():
        part = systems.get(name)
        found |= {f"sample.{key.name}" for key in documented_keys(part.options_type)}
        found |= {f"parts.{key.name}" for key in documented_keys(part)}
    found |= {"parts.reranker"}
    return found | {f"{section}.type" for section in ("model", "task", "data", "tokenizer", "optim", "system")}


@pytest.mark.parametrize("path", [path for path in PAGES if path.name != "CHANGELOG.md"], ids=lambda path: path.name)
def test_recipe_keys_in_the_text_exist(path: Path):
    sections = "model|task|data|optim|train|tracker|tokenizer|learn|sample|parts"
    for code in inline(path.read_text(encoding="utf-8")):
        for section, key in re.findall(rf"(?<![\w./])({sections})\.(?:\w+\.)*([a-z_]+)\b(?![./(])", code):
            if (
                f"{section}.{key}" not in _keys()
                and "did you mean" not in code
                and not code.endswith((".py", ".safetensors", ".json"))
            ):
                raise AssertionError(f"{section}.{key} in `{code}`")


def _messages() -> list[str]:
    """The texts in the package, with … for what is filled in."""
    found = []
    for path in (ROOT / "dalle_cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(one.value) if isinstance(one, ast.Constant) else "…" for one in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"\{[^}]*\}", "…", node.value))
    return found


def test_errors_of_troubleshooting_are_those_of_the_program():
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)` \|", text, re.M)
    assert len(quoted) >= 30
    messages = "\n".join(_messages())
    for error in quoted:
        for piece in error.split("…"):
            if len(piece.strip()) >= 8:
                assert piece.strip() in messages, f"{piece.strip()!r} of: {error}"


def test_prose_leaves_out_blocks():
    assert "dalle" not in prose("text\n```sh\ndalle sample\n```\n")
