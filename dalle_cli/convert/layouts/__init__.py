"""Published layouts, one file per source; each module defines `LAYOUT` and is discovered by that."""

import importlib
import pkgutil

from ..layout import Layout


def all_layouts() -> dict[str, Layout]:
    """Return every published layout by name: the `LAYOUT` of each module of this package."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {module.LAYOUT.name: module.LAYOUT for module in modules}
