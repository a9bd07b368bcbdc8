"""The command line: thin functions over the package. Nothing heavy is imported until a command runs."""

from .main import main

__all__ = ["main"]
