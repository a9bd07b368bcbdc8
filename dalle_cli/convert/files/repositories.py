"""Which files of a repository an import reads, by their names alone."""

from collections.abc import Sequence
from fnmatch import fnmatch

from ...exits import BAD_INPUT, Failure
from ...registry import suggest
from ..layouts import all_layouts
from .folders import weights
from .opening import patterns

# What is read beside weights; all of it small.
BESIDE = (
    *("config.json", "open_clip_config.json", "model_index.json", "*scheduler_config.json"),
    *("vocab.json", "merges.txt", "tokenizer.json", "vocab.bpe", "encoder.json"),
)


def choose(names: Sequence[str], inside: str, system: bool, source: str) -> list[str]:
    """The files of a repository that an import of `inside`, one of its files or folders, or "", reads.

    Shards are not among them: their index, which is, names them. Raises Failure where there is nothing, or no telling.
    """
    folders: dict[str, list[str]] = {}
    for name in sorted(names):
        folder, _, last = name.rpartition("/")
        folders.setdefault(folder, []).append(last)
    if inside in names:
        folder, _, last = inside.rpartition("/")
        chosen = {folder: _with_others(last, folders[folder])}
    elif inside in folders or not inside or any(one.startswith(f"{inside}/") for one in folders):
        chosen = _of_folders(folders, inside, system, source)
    else:
        raise Failure(f"{source}: the repository has no '{inside}'{suggest(inside, [*names, *folders])}", BAD_INPUT)
    looked = {*chosen, *(f"{folder.rpartition('/')[0]}/tokenizer".lstrip("/") for folder in chosen)}
    if system:
        looked |= {folder for folder in folders if folder.rpartition("/")[0] == inside}
    small = (*BESIDE, *patterns())
    found = {(folder, name) for folder, own in chosen.items() for name in own}
    for folder in looked & folders.keys():
        found |= {(folder, name) for name in folders[folder] if any(fnmatch(name, one) for one in small)}
    return sorted(f"{folder}/{name}".lstrip("/") for folder, name in found)


def _of_folders(folders: dict[str, list[str]], inside: str, system: bool, source: str) -> dict[str, list[str]]:
    """Weights by folder: of one, with those that go with it, or of all of a system."""
    parent, _, last = inside.rpartition("/")
    children = [one for one in folders if one.rpartition("/")[0] == inside and one != inside]
    places = [inside, *children] if system else [inside]
    for one in all_layouts().values():
        if last in one.files.values():
            places += [f"{parent}/{name}".lstrip("/") for name in one.files.values() if name != last]
    found = {folder: weights(folders.get(folder, ()), patterns()) for folder in places}
    found = {folder: own for folder, own in found.items() if own}
    if not found:
        holding = [one for one in children if weights(folders[one], patterns())]
        told = f"add --system, or name one: {', '.join(f'{source}:{one}' for one in holding[:4])}"
        raise Failure(f"{source}: " + (f"several models; {told}" if holding else "no weights there"), BAD_INPUT)
    for own in found.values():
        whole = any(set(own) == set(one.files.values()) for one in all_layouts().values())
        if len(own) > 1 and not whole and not system:
            told = ", ".join(f"{source}:{name}" for name in own[:4])
            raise Failure(f"{source}: several files of weights; name one: {told}", BAD_INPUT)
    return found


def _with_others(name: str, beside: list[str]) -> list[str]:
    """A file, and those of the same model beside it."""
    others = [other for one in all_layouts().values() if name in one.files.values() for other in one.files.values()]
    return [name, *(other for other in others if other != name and other in beside)]
