"""What a protocol is: a function from systems, models or data to a result, in a file of its own.

A file `protocols/NAME.py` that defines a function `NAME` is `evaluate.NAME(...)` in Python and `dalle evaluate NAME` on
the command line; a file `probes/NAME.py` is `evaluate.probe_NAME(...)` and `dalle probe NAME`. There is no list to
extend. The command's options are the function's parameters: one that is no option of several commands is annotated with
`Annotated[type, Option("help", ...)]`. The first paragraph of the docstring is the command's help,
and the file's constant EXAMPLES its examples. A parameter `progress` is called with how far the work is; a parameter
`results` receives each image when it is finished, and the command prints these with the columns COLUMNS.
"""

import ast
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")
Progress = Callable[[str, int, int], Any]
"""Called with the name of a stage, how much of it is done, and of how much."""

PROTOCOLS, PROBES = "protocols", "probes"  # folders
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Option:
    """How the command line takes a parameter of a protocol.

    minimum, maximum: the range of a number. flags: default `--name`. positional: an argument instead of an option.
    panel: the heading of the help under which it is listed.
    """

    help: str
    minimum: float | None = None
    maximum: float | None = None
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    positional: bool = False
    panel: str = "Input"


Rows = Sequence[Sequence[tuple[Any, str]]]
"""Rows of a sheet: images, or their files, with their captions."""


class Result:
    """What a protocol returns. Subclasses are frozen dataclasses of its figures.

    exit_code: not 0 where some images failed. rows: images and their captions for a sheet, as `sheets.save_rows` takes
    them; sheet: whether there are any. titled: whether the command adds its name to each JSON object.
    """

    rows: Rows
    exit_code: ClassVar[int] = 0
    sheet: ClassVar[bool] = False
    titled: ClassVar[bool] = True

    def to_json(self) -> list[dict[str, Any]]:
        """Return the figures as one JSON object per line."""
        raise NotImplementedError

    def table(self) -> list[str]:
        """Return the figures as lines of text."""
        raise NotImplementedError

    def save_sheet(self, path: str) -> None:
        """Write the sheet of rows as a PNG."""
        from ..generate.sheets import save_rows

        save_rows(path, self.rows)


def silent(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def tracked(items: Iterable[T], stage: str, total: int, progress: Progress) -> Iterator[T]:
    """Yield the items and report how many have been used."""
    for done, item in enumerate(items, 1):
        yield item
        progress(stage, done, total)


def names(folder: str) -> list[str]:
    """Return the names of the protocols in a folder, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules([str(FOLDER / folder)]))


def load(folder: str, name: str) -> Callable[..., Result | None]:
    """Import a protocol. Raises KeyError for an unknown name."""
    if name not in names(folder):
        raise KeyError(name)
    return getattr(importlib.import_module(f"{__package__}.{folder}.{name}"), name)


def constant(folder: str, name: str, constant: str) -> tuple[str, ...]:
    """Return a constant of a protocol's file: EXAMPLES, or COLUMNS; empty where it defines none."""
    return getattr(importlib.import_module(f"{__package__}.{folder}.{name}"), constant, ())


@cache
def summary(folder: str, name: str) -> str:
    """Return the first paragraph of a protocol's docstring, without importing it."""
    tree = ast.parse((FOLDER / folder / f"{name}.py").read_text(encoding="utf-8"))
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return " ".join((ast.get_docstring(function) or "").split("\n\n")[0].split())
