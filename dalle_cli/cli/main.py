"""Import the commands, and run the command line. Every module of this package registers its own commands."""

import importlib
import pkgutil
from typing import NoReturn

import typer

from .app import app, run


def load() -> typer.Typer:
    """Return the app with all its commands; a new file in this folder is a new command."""
    package = importlib.import_module(__package__ or "dalle_cli.cli")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return app


def main() -> NoReturn:
    """Run `dalle`."""
    load()
    run()
