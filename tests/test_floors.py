"""The architecture: imports go down the floors, never up or sideways, and files and functions stay short.

Imports inside functions and for type checkers count too.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dalle_cli"
TESTS = Path(__file__).parent

FLOORS = (
    {"registry", "files", "exits", "hardware"},
    {
        "recipe",
        "migrations",
        "images",
        "fonts",
        "contact_sheet",
        "console",
        "distributed",
        "launch",
        "nn",
        "diffusion",
        "text",
    },
    {"models", "data"},
    {"tasks", "checkpoint"},
    {"systems", "training", "convert"},
    {"generate"},
    {"evaluate"},
    {"cli"},
    {"__main__", "__init__"},  # the command line's and Python's front doors
)
# Single files within a floor that others of it build on, (importing, imported): small ones without the rest of it.
WITHIN_FLOOR = {
    ("files", "exits"), ("recipe", "migrations"), ("images", "distributed"), ("console", "distributed"),
    ("checkpoint", "tasks"),
    ("fonts", "console"), ("contact_sheet", "fonts"), ("contact_sheet", "images"),
}  # fmt: skip

MAX_FILE, MAX_FUNCTION, MAX_BODY = 350, 80, 25  # lines
LONG_FUNCTIONS = {"training/loop.py:fit"}  # one loop in reading order

UNMIRRORED = {"__init__", "__main__"}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def floor(unit: str) -> int:
    return next(number for number, units in enumerate(FLOORS) if unit in units)


def unit(module: Path) -> str:
    """Return the package or single file below dalle_cli that a module is part of."""
    return module.parts[0].removesuffix(".py")


def imports(module: Path, node: ast.AST) -> list[str]:
    """Return the dotted names that a statement imports, those of the package starting with `dalle_cli.`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    if not node.level:
        return [node.module or ""]
    place = ("dalle_cli", *module.parts)[: -node.level]
    base = ".".join((*place, *(node.module.split(".") if node.module else ())))
    return [f"{base}.{alias.name}" for alias in node.names]


@cache
def tree_of(module: Path) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


@cache
def imported(module: Path, everywhere: bool = True) -> frozenset[str]:
    """Return all names that a module imports. everywhere: also within functions and for type checkers."""
    tree = tree_of(module)
    nodes = ast.walk(tree) if everywhere else tree.body
    return frozenset(name for node in nodes for name in imports(module, node))


def units_of(names: Iterable[str]) -> set[str]:
    """Return the units of the package among imported names; `dalle_cli.__version__` belongs to none."""
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "dalle_cli" and len(part) > 1 and part[1] != "__version__"}


def files_of(names: Iterable[str]) -> set[Path]:
    """Return the files of the package among imported names."""
    files = set()
    for name in names:
        parts = name.split(".")[1:] if name.startswith("dalle_cli.") else []
        for end in range(len(parts), 0, -1):
            candidates = (Path(*parts[:end]).with_suffix(".py"), Path(*parts[:end], "__init__.py"))
            if found := next((path for path in candidates if path in MODULES), None):
                files.add(found)
                break
    return files


def circle(graph: dict[Path, set[Path]]) -> list[Path]:
    """Return files that import each other in a circle, or an empty list."""
    done: set[Path] = set()

    def visit(module: Path, path: list[Path]) -> list[Path]:
        if module in path:
            return path[path.index(module) :]
        if module not in done:
            for other in sorted(graph[module]):
                if found := visit(other, [*path, module]):
                    return found
            done.add(module)
        return []

    return next(filter(None, (visit(module, []) for module in graph)), [])


def functions(module: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a decorator registers a function as a command."""
    called = {ast.unparse(one.func) for one in node.decorator_list if isinstance(one, ast.Call)}
    return bool(called & {"command", "latent_command"})


def test_modules_are_found():
    assert len(MODULES) > 60
    assert {unit(module) for module in MODULES} <= set().union(*FLOORS)
    assert "recipe" in units_of(imported(Path("cli/manage.py")))  # inside a function
    assert units_of(imported(Path("cli/manage.py"), everywhere=False)) == {"console", "exits", "registry", "cli"}
    assert "nn" in units_of(imported(Path("models/dalle.py")))
    assert units_of(imported(Path("data/scenes/__init__.py"))) == {"data"}  # from two levels down
    assert units_of(imported(Path("__main__.py"))) == {"cli"}
    assert sum(len(units_of(imported(module))) for module in MODULES) > 150
    assert {Path("cli/app.py"), Path("console.py")} <= files_of(imported(Path("cli/manage.py")))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_down(module):
    importing = unit(module)
    for other in units_of(imported(module)) - {importing}:
        allowed = floor(other) < floor(importing) or (importing, other) in WITHIN_FLOOR
        assert allowed, f"{module} imports {other}"


def test_exceptions_are_used():
    used = {(unit(module), other) for module in MODULES for other in units_of(imported(module))}
    assert used >= WITHIN_FLOOR


def test_circles_are_recognized():
    a, b, c = map(Path, "abc")
    assert circle({a: {b}, b: {c}, c: set()}) == []
    assert sorted(circle({a: {b}, b: {c}, c: {b}})) == [b, c]


def test_no_files_import_each_other():
    graph = {module: files_of(imported(module)) - {module} for module in MODULES}
    assert sum(map(len, graph.values())) > 300
    assert circle(graph) == []


@pytest.mark.parametrize("module", [m for m in MODULES if unit(m) in ("registry", "text", "exits", "files")], ids=str)
def test_lowest_modules_do_not_import_torch(module):
    assert not {name.split(".")[0] for name in imported(module)} & {"torch", "accelerate", "safetensors", "omegaconf"}


def test_one_file_imports_omegaconf():
    importing = [str(module) for module in MODULES if any(name.startswith("omegaconf") for name in imported(module))]
    assert importing == ["recipe.py"]


@pytest.mark.parametrize("module", [m for m in MODULES if unit(m) == "cli"], ids=str)
def test_command_line_imports_nothing_heavy_at_start(module):
    names = imported(module, everywhere=False)
    outside = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert outside <= {"typer", "dalle_cli"}
    assert units_of(names) <= {"cli", "console", "distributed", "exits", "registry"}


def test_nothing_unpickles():
    for module in MODULES:
        roots = {name.split(".")[0] for name in imported(module)}
        assert not roots & {"pickle", "dill", "cloudpickle", "shelve"}, module


def test_files_are_short():
    lengths = {str(module): len((PACKAGE / module).read_text().splitlines()) for module in MODULES}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE} == {}


def test_functions_are_short():
    lengths = {
        f"{module}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for module in MODULES
        for node in functions(module)
    }
    assert len(lengths) > 1000
    assert set(lengths) >= LONG_FUNCTIONS
    too_long = {name: length for name, length in lengths.items() if length > MAX_FUNCTION}
    assert {name: length for name, length in too_long.items() if name not in LONG_FUNCTIONS} == {}


def test_bodies_of_commands_are_short():
    """Count the lines after the signature and the docstring."""
    lengths = {}
    for module in MODULES:
        commands = filter(is_command, functions(module)) if unit(module) == "cli" else ()
        for node in commands:
            statements = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if statements:
                lengths[f"{module}:{node.name}"] = (statements[-1].end_lineno or 0) - statements[0].lineno + 1
    assert len(lengths) > 15
    assert {name: length for name, length in lengths.items() if length > MAX_BODY} == {}


def mirrored(module: Path) -> Path:
    """Return the test file of a module."""
    return TESTS / module.with_name(f"test_{module.name}")


def test_every_module_has_a_test_file():
    wanted = [module for module in MODULES if module.stem not in UNMIRRORED]
    assert len(wanted) > 50
    missing = {str(module) for module in wanted if not mirrored(module).is_file()}
    assert not missing, f"without tests: {', '.join(sorted(missing))}"
