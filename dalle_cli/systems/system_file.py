"""`system.yaml` next to a trained prior, by which `dalle sample --recipe RUN` finds the other parts of the system.

A transformer's recipe names no CLIP, and an unCLIP prior's names no decoder; both are looked for among the runs.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import checkpoint, recipe
from ..files import write_atomically
from .loading import DALLE1_RECIPE, RERANKER

RUNS = Path("checkpoints")
DATA_IDENTITY = ("type", "path", "objects", "sources")  # keys by which two runs have the same data


def write_system_file(run: Path) -> tuple[Path, recipe.Recipe] | None:
    """Write the system file of a trained prior; returns its path and content.

    Returns None, and writes nothing, if the file exists, or if the run is not the prior of a system whose other parts
    exist.
    """
    target = run / recipe.IN_FOLDER
    trained = _recipe_of(run)
    if target.exists() or trained is None:
        return None
    system = _dalle1(trained) or _unclip(trained)
    if system is None:
        return None
    lines = [
        f"# The system of run {run.name}, written when its training ended; edit it as you like.",
        "#",
        f'#   dalle sample "a red circle" --recipe {run.name}',
        recipe.to_yaml(system),
    ]
    write_atomically(target, lambda path: path.write_text("\n".join(lines), encoding="utf-8"))
    return target, system


def _dalle1(trained: recipe.Recipe) -> recipe.Recipe | None:
    """Return the system of a transformer with a CLIP trained on the same data, or with that of DALLE1_RECIPE."""
    if recipe.type_of(trained, "model") != "dalle":
        return None
    data = recipe.section(trained, "data")
    clips = (name for name, other in _runs() if recipe.type_of(other, "model") == "clip" and _same_data(data, other))
    reranker = next(clips, None) or recipe.load(DALLE1_RECIPE, "systems")["parts"].get(RERANKER)
    parts = {"transformer": f"./{checkpoint.FILE}", RERANKER: reranker}
    return {"system": {"type": "dalle1"}, "parts": parts}


def _unclip(trained: recipe.Recipe) -> recipe.Recipe | None:
    """Return the system of a prior with a decoder that reads the embeddings of the same CLIP."""
    clip = recipe.section(trained, "frozen").get("clip")
    if clip is None or recipe.section(trained, "model").get("conditions"):
        return None
    decoder = next((name for name, other in _runs() if _decodes(other, clip)), None)
    if decoder is None:
        return None
    parts = {"prior": f"./{checkpoint.FILE}", "decoder": decoder, "clip": clip, RERANKER: clip}
    return {"system": {"type": "unclip"}, "parts": parts}


def _decodes(trained: recipe.Recipe, clip: str) -> bool:
    conditions = recipe.section(trained, "model").get("conditions")
    nodes = conditions.values() if isinstance(conditions, Mapping) else ()
    reads_embeddings = any(isinstance(node, Mapping) and node.get("type") == "clip-condition" for node in nodes)
    return reads_embeddings and recipe.section(trained, "frozen").get("clip") == clip


def _same_data(data: Mapping[str, Any], other: recipe.Recipe) -> bool:
    theirs = recipe.section(other, "data")
    return all(data.get(key) == theirs.get(key) for key in DATA_IDENTITY)


def _runs() -> Iterator[tuple[str, recipe.Recipe]]:
    """Yield the names and recipes of all runs, the latest first."""
    files = sorted(RUNS.glob(f"*/{checkpoint.FILE}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files:
        trained = _recipe_of(path.parent)
        if trained is not None:
            yield str(path.parent), trained


def _recipe_of(run: Path) -> recipe.Recipe | None:
    """Return the recipe of a run's checkpoint, None if it cannot be read."""
    try:
        return checkpoint.metadata(run / checkpoint.FILE)["recipe"]
    except checkpoint.CheckpointError:
        return None
