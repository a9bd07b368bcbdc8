"""Find a recipe by what a user calls it."""

import os
from pathlib import Path

from ..registry import RecipeError, suggest


def locate(name: str, family: str | None = None) -> tuple[str, str] | None:
    """Return (family, name) of a recipe named `family/name`, by its file, or by a name that only one family has.

    Returns None for any other name. Raises RecipeError when the family is unknown or must be given.
    """
    from .. import recipe

    if family is not None:
        if family not in recipe.FAMILIES:
            raise RecipeError(f"--family: no family '{family}'{suggest(family, recipe.FAMILIES)}")
        return family, name.removeprefix(f"{family}/")
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if os.path.isfile(path) and path.resolve().parent.name not in recipe.FAMILIES:
            raise RecipeError(f"{name}: which family is this recipe of? Add --family: {', '.join(recipe.FAMILIES)}")
        return path.resolve().parent.name, name
    head, _, tail = name.partition("/")
    if head in recipe.FAMILIES and tail:
        return head, tail
    families = [family for family in recipe.FAMILIES if name in recipe.names(family)]
    if len(families) > 1:
        choices = " or ".join(f"{family}/{name}" for family in families)
        raise RecipeError(f"several families have a recipe '{name}': use {choices}")
    return (families[0], name) if families else None


def known_recipes() -> list[str]:
    """Return `family/name` of every recipe."""
    from .. import recipe

    return [f"{family}/{name}" for family in recipe.FAMILIES for name in recipe.names(family)]


def accepts(path: str, name: str) -> set[str] | None:
    """Call `checkpoint.accepts`, imported only when an override changes the type of a part."""
    from .. import checkpoint

    return checkpoint.accepts(path, name)
