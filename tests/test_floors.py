"""What may import what: down the floors, never up and never aside. Imports inside functions count too."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dalle_cli"
TESTS = Path(__file__).parent

FLOORS = (
    {"registry", "files", "exits", "hardware"},
    {"recipe", "migrations", "images", "fonts", "contact_sheet", "console", "distributed", "nn", "diffusion", "text"},
    {"models", "data"},
    {"tasks", "checkpoint"},
    {"systems", "training", "convert"},
    {"generate"},
    {"evaluate"},
    {"cli"},
    {"__main__"},
)
# Within a floor: from, to. Single files that the packages of their floor stand on, or that join them.
BESIDE = {
    ("files", "exits"), ("images", "distributed"), ("console", "distributed"), ("checkpoint", "tasks"),
    ("fonts", "console"), ("contact_sheet", "fonts"), ("contact_sheet", "images"),
}  # fmt: skip

UNMIRRORED = {"__init__", "__main__"}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def floor(unit: str) -> int:
    return next(number for number, units in enumerate(FLOORS) if unit in units)


def unit(module: Path) -> str:
    """The package or single file below dalle_cli that a module is part of."""
    return module.parts[0].removesuffix(".py")


def imports(module: Path, node: ast.AST) -> list[str]:
    """Dotted names that a statement imports; those of the package as `dalle_cli.` and the path."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    if not node.level:
        return [node.module or ""]
    place = ("dalle_cli", *module.parts)[: -node.level]
    base = ".".join((*place, *(node.module.split(".") if node.module else ())))
    return [f"{base}.{alias.name}" for alias in node.names]


def imported(module: Path, everywhere: bool = True) -> set[str]:
    """All names that a module imports; everywhere: those of its functions, and for type checkers alone, too."""
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else tree.body
    return {name for node in nodes for name in imports(module, node)}


def units_of(names: set[str]) -> set[str]:
    """Units of the package among imported names; `dalle_cli.__version__` is of none."""
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "dalle_cli" and len(part) > 1 and part[1] != "__version__"}


def test_the_walk_sees_what_there_is():
    assert len(MODULES) > 60
    assert {unit(module) for module in MODULES} - {"__init__"} <= set().union(*FLOORS)
    assert "recipe" in units_of(imported(Path("cli/manage.py")))  # inside a function
    assert units_of(imported(Path("cli/manage.py"), everywhere=False)) == {"console", "exits", "registry", "cli"}
    assert "nn" in units_of(imported(Path("models/dalle.py")))
    assert units_of(imported(Path("data/scenes/__init__.py"))) == {"data"}  # from two levels down
    assert units_of(imported(Path("__main__.py"))) == {"cli"}
    assert sum(len(units_of(imported(module))) for module in MODULES) > 150


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_down(module):
    own = unit(module)
    if own == "__init__":
        assert not units_of(imported(module))
        return
    for other in units_of(imported(module)) - {own}:
        assert floor(other) < floor(own) or (own, other) in BESIDE, f"{module} imports {other}"


def test_the_exceptions_are_used():
    used = {(unit(module), other) for module in MODULES for other in units_of(imported(module))}
    assert used >= BESIDE


@pytest.mark.parametrize("module", [m for m in MODULES if unit(m) in ("registry", "text", "exits", "files")], ids=str)
def test_the_ground_floor_stands_without_torch(module):
    assert not {name.split(".")[0] for name in imported(module)} & {"torch", "accelerate", "safetensors", "omegaconf"}


def test_one_file_knows_omegaconf():
    knowing = [str(module) for module in MODULES if any(name.startswith("omegaconf") for name in imported(module))]
    assert knowing == ["recipe.py"]


@pytest.mark.parametrize("module", [m for m in MODULES if unit(m) == "cli"], ids=str)
def test_the_command_line_imports_nothing_heavy_until_a_command_runs(module):
    names = imported(module, everywhere=False)
    outside = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert outside <= {"typer", "dalle_cli"}
    assert units_of(names) <= {"cli", "console", "distributed", "exits", "registry"}


def test_nothing_unpickles():
    for module in MODULES:
        assert not {name.split(".")[0] for name in imported(module)} & {"pickle", "dill", "cloudpickle", "shelve"}, (
            module
        )


def mirrored(module: Path) -> Path:
    """The test file of a module."""
    return TESTS / module.with_name(f"test_{module.name}")


def test_every_module_has_its_tests():
    wanted = [module for module in MODULES if module.stem not in UNMIRRORED]
    assert len(wanted) > 50
    missing = {str(module) for module in wanted if not mirrored(module).is_file()}
    assert not missing, f"without tests: {', '.join(sorted(missing))}"
