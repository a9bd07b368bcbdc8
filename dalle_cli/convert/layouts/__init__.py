"""Published layouts, one file per source; a module that defines `LAYOUTS` is found by itself."""

import importlib
import pkgutil
from functools import cache

from ..layout import Layout


@cache
def all_layouts() -> dict[str, Layout]:
    """Return every published layout by name: the `LAYOUTS` of each module of this package."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {layout.name: layout for module in modules for layout in module.LAYOUTS}
