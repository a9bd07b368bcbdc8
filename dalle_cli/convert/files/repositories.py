"""Choose the files of a repository that an import reads, by their names."""

from collections.abc import Sequence
from fnmatch import fnmatch

from ...exits import BAD_INPUT, Failure
from ...registry import suggest
from ..layouts import all_layouts
from .folders import weight_files
from .opening import side_file_patterns

# Small files that an import reads next to the weights.
SMALL_FILES = (
    *("config.json", "open_clip_config.json", "model_index.json", "*scheduler_config.json"),
    *("vocab.json", "merges.txt", "tokenizer.json", "vocab.bpe", "encoder.json"),
)


def choose(names: Sequence[str], inside: str, system: bool, source: str) -> list[str]:
    """Return the files of a repository that an import of `inside`, one of its files or folders, or "", reads.

    Shards are left to their index, which is among them. Raises Failure where there are no weights, or several.
    """
    folders: dict[str, list[str]] = {}
    for name in sorted(names):
        folder, _, last = name.rpartition("/")
        folders.setdefault(folder, []).append(last)
    if inside in names:
        folder, _, last = inside.rpartition("/")
        chosen = {folder: _with_parts(last, folders[folder])}
    elif inside in folders or not inside or any(folder.startswith(f"{inside}/") for folder in folders):
        chosen = _in_folders(folders, inside, system, source)
    else:
        raise Failure(f"{source}: the repository has no '{inside}'{suggest(inside, [*names, *folders])}", BAD_INPUT)
    searched = {*chosen, *(f"{folder.rpartition('/')[0]}/tokenizer".lstrip("/") for folder in chosen)}
    if system:
        searched |= {folder for folder in folders if folder.rpartition("/")[0] == inside}
    small = (*SMALL_FILES, *side_file_patterns())
    files = {(folder, name) for folder, weights in chosen.items() for name in weights}
    for folder in searched & folders.keys():
        files |= {(folder, name) for name in folders[folder] if any(fnmatch(name, pattern) for pattern in small)}
    return sorted(f"{folder}/{name}".lstrip("/") for folder, name in files)


def _in_folders(folders: dict[str, list[str]], inside: str, system: bool, source: str) -> dict[str, list[str]]:
    """Weights by folder: those of one folder, with the other folders of the same model, or of all models."""
    parent, _, last = inside.rpartition("/")
    children = [folder for folder in folders if folder.rpartition("/")[0] == inside and folder != inside]
    places = [inside, *children] if system else [inside]
    for layout in all_layouts().values():
        if last in layout.files.values():
            places += [f"{parent}/{name}".lstrip("/") for name in layout.files.values() if name != last]
    weights = {folder: weight_files(folders.get(folder, ()), side_file_patterns()) for folder in places}
    weights = {folder: names for folder, names in weights.items() if names}
    if not weights:
        with_weights = [folder for folder in children if weight_files(folders[folder], side_file_patterns())]
        hint = f"add --system, or name one: {', '.join(f'{source}:{folder}' for folder in with_weights[:4])}"
        problem = f"several models; {hint}" if with_weights else "no weights there"
        raise Failure(f"{source}: {problem}", BAD_INPUT)
    for names in weights.values():
        complete = any(set(names) == set(layout.files.values()) for layout in all_layouts().values())
        if len(names) > 1 and not complete and not system:
            choices = ", ".join(f"{source}:{name}" for name in names[:4])
            raise Failure(f"{source}: several files of weights; name one: {choices}", BAD_INPUT)
    return weights


def _with_parts(name: str, names: list[str]) -> list[str]:
    """A file, and those of the same model in its folder."""
    layouts = [layout for layout in all_layouts().values() if name in layout.files.values()]
    others = [other for layout in layouts for other in layout.files.values()]
    return [name, *(other for other in others if other != name and other in names)]
