"""The `data` section of a recipe: keys common to all sources, and those of the source that `type` names.

Both are written in one flat mapping, `{type: folder, path: photos, size: 64, flip: true}`, and checked before anything
is read.
"""

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..images import EXTENSIONS
from ..registry import RecipeError, bind, check_choice, suggest
from . import sources
from .source import DataError, expand, relative_note
from .transforms import CROPS

SUPPLIED = ("size", "max_pixels", "at_least")  # passed to sources that take them; not keys of a recipe


@dataclass(frozen=True)
class Loading:
    """The keys of `data` that any source takes.

    size: side of the square training images, in pixels. crop: from an image of any shape to a square, one of center,
    random, dvae, dalle, adm, adm-random, align (each as in the paper), or pad (the whole image on white). caption: of
    several captions of an image: random (another one each time), first, or join (all in one line). flip: mirror half of
    the images. require_captions: whether a sample without a caption is bad; else its caption is "". num_workers:
    processes that read; 0 reads in the training process. max_bad_fraction: fraction of bad samples above which the run
    stops. val_samples: samples held out for validation; default, a twentieth of all, 256 at most. max_pixels: larger
    images are bad samples.
    """

    size: int
    crop: str = "center"
    caption: Literal["random", "first", "join"] = "random"
    flip: bool = False
    require_captions: bool = True
    num_workers: int = 2
    max_bad_fraction: float = 0.05
    val_samples: int | None = None
    max_pixels: int = 50_000_000

    def __post_init__(self):
        check_choice(self.crop, CROPS, "data.crop")
        for name, low, high in (
            ("size", 1, 1 << 16), ("num_workers", 0, 1024), ("max_bad_fraction", 0, 1), ("val_samples", 0, 1 << 40),
            ("max_pixels", 1, 1 << 40),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise RecipeError(f"data.{name}: {value} is not between {low} and {high}")


def check(node: Any, path: str = "data") -> dict[str, Any]:
    """Return a `data` section, typed, and checked without reading any data. Raises RecipeError."""
    loading, inner = split(node, path)
    children = [sources.typed(child, where, SUPPLIED) for child, where in _children(inner, path)]
    inner = {key: value for key, value in inner.items() if not (children and key == "sources")}
    typed = sources.typed(inner, path, (*SUPPLIED, "sources"))
    common = {key: getattr(loading, key) for key in node if hasattr(loading, key)}
    return {**typed, **common, **({"sources": children} if children else {})}


def open_source(node: Any, path: str = "data", reduced: bool = True) -> tuple[Any, Loading]:
    """Return the source (or mixture) of a `data` section, and its common keys.

    reduced: decode JPEGs at a fraction of their size, still at least twice `size`. Raises RecipeError, or DataError for
    files that cannot be used.
    """
    loading, inner = split(node, path)
    supplied = dict(zip(SUPPLIED, (loading.size, loading.max_pixels, 2 * loading.size if reduced else None)))
    children = [sources.build(child, where, **supplied) for child, where in _children(inner, path)]
    inner = {key: value for key, value in inner.items() if not (children and key == "sources")}
    return sources.build(inner, path, **supplied, sources=children), loading


def split(node: Any, path: str = "data") -> tuple[Loading, dict[str, Any]]:
    """Return the common keys of a section, and the rest of it. Raises RecipeError for unknown keys."""
    if not isinstance(node, Mapping) or "type" not in node:
        raise RecipeError(f"{path}: expected a mapping with a type; one of {', '.join(sources.names())}")
    common = set(inspect.signature(Loading).parameters)
    specific = set(inspect.signature(sources.get(node["type"], f"{path}.type")).parameters) - set(SUPPLIED)
    for key in node:
        if key not in common | specific | {"type"}:
            raise RecipeError(f"{path}.{key}: data '{node['type']}' takes no '{key}'{suggest(key, common | specific)}")
    loading = Loading(**bind(Loading, {key: node[key] for key in node if key in common}, path))
    return loading, {key: value for key, value in node.items() if key not in common}


def infer_type(path: str) -> str:
    """Return folder, shards or table: by the name of a file, and for a folder by the first files in it.

    Raises DataError where the path holds none of them.
    """
    from .folder import METADATA  # these register sources, which this module looks up
    from .table import SUFFIXES

    path = expand(path)
    if not os.path.isdir(path):
        suffix = os.path.splitext(path)[1].lower()
        types = {".tar": "shards", **dict.fromkeys(SUFFIXES, "table")}
        if suffix in types:
            return types[suffix]
        raise DataError(f"data.path: no folder, .tar or table ({', '.join(SUFFIXES)}) at '{path}'{relative_note(path)}")
    for folder, inner, names in os.walk(path, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        suffixes = {os.path.splitext(name)[1].lower() for name in names if not name.startswith(".")}
        if folder == path and any(name in METADATA for name in names):
            return "folder"
        for type_, marks in (("shards", {".tar"}), ("folder", EXTENSIONS), ("table", set(SUFFIXES))):
            if suffixes & marks:
                return type_
    raise DataError(f"data.path: no images, .tar files or tables in '{path}'{relative_note(path)}")


def _children(node: Mapping[str, Any], path: str) -> list[tuple[Any, str]]:
    """Return the nodes inside a mixture, and their paths; none for any other source."""
    if node["type"] != "mixture":
        return []
    nodes = node.get("sources")
    if not isinstance(nodes, list) or not nodes:
        raise RecipeError(f"{path}.sources: expected a list of data sources")
    for number, one in enumerate(nodes):
        if isinstance(one, Mapping) and one.get("type") == "mixture":
            raise RecipeError(f"{path}.sources.{number}: a mixture in a mixture; list its sources in the outer one")
    return [(one, f"{path}.sources.{number}") for number, one in enumerate(nodes)]
