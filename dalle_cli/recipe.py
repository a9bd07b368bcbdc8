"""Recipes: YAML files that say what is composed, and how it is trained or sampled. The only file that uses OmegaConf.

`load` finds a recipe by name or path, merges its parent and the overrides, resolves interpolations, and returns plain
dicts and lists. Values stay as written; the parts' signatures type them (see registry.py).
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from .migrations import is_system_of_version_1, to_version_2
from .registry import RecipeError, suggest

FAMILIES = {
    "tokenizer": "train-tokenizer",
    "dvae": "train-dvae",
    "clip": "train-clip",
    "prior": "train-prior",
    "decoder": "train-decoder",
    "classifier": "train-classifier",
    "systems": "sample",
}
TRAINING = ("model", "task", "frozen", "data", "optim", "train", "tracker", "tokenizer")
SYSTEM = ("system", "parts", "sample")
IN_FOLDER = "system.yaml"  # the recipe of a system in the folder of its parts
IMPORTED = (IN_FOLDER, "inpaint.yaml")  # files that `dalle import --system` writes
LEARNING = ("tokenizer", "learn", "data")
SECTIONS = {"systems": SYSTEM, "tokenizer": LEARNING}
NO_DATA = (
    "{name}: no data given: add data.path=/my/pairs (and data.type=folder, shards or table), "
    "set the environment variable DALLE_DATA, or take the built-in scenes with data.type=scenes"
)

Recipe = dict[str, Any]
# From the path of a section and the name of a part to the arguments that it takes; None for sections without parts.
Accepts = Callable[[str, str], "set[str] | None"]


def load(
    name: str,
    family: str,
    overrides: Sequence[str] = (),
    accepts: Accepts | None = None,
    say: Callable[[str], None] = lambda line: None,
    complete: bool = True,
) -> Recipe:
    """Return the recipe `name` of a family with overrides applied, as plain data.

    name: a path to a YAML file, or a name looked up under ./recipes/<family>, then in the package. overrides: words
    `key.path=value`. accepts: makes an override of a part's type drop the keys that the new part does not take, which
    `say` reports. complete: False leaves open values as they are: `???`, or no data.path. Raises RecipeError.
    """
    path = find(name, family)
    config = _merge(_read(path), path, family)
    if family == "systems" and path.name in IMPORTED:
        config = _migrated(config)
    for word in overrides:
        _override(config, word, family, accepts, say)
    return finish(config, path.stem, family, complete)


def from_mapping(
    values: Mapping[str, Any], overrides: Sequence[str] = (), accepts: Accepts | None = None, family: str = ""
) -> Recipe:
    """Return a recipe that is given as data, with its overrides applied; see `load`. Raises RecipeError."""
    from omegaconf import OmegaConf

    config = OmegaConf.create(dict(values))
    for word in overrides:
        _override(config, word, family, accepts, lambda line: None)
    return finish(config, "recipe", family)


def finish(config: Any, name: str, family: str, complete: bool = True) -> Recipe:
    """Resolve the interpolations of a recipe. Raises RecipeError for unknown sections and, if complete, open values."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    sections = SECTIONS.get(family, TRAINING)
    for key in config:
        if key not in sections:
            raise RecipeError(f"{name}: no section '{str(key)[:60]}'{suggest(key, sections)}")
    try:
        missing = sorted(str(key) for key in OmegaConf.missing_keys(config)) if complete else []
        if "data.path" in missing:
            raise RecipeError(NO_DATA.format(name=name))
        if missing:
            raise RecipeError(f"{name}: give {', '.join(f'{key}=...' for key in missing)}")
        recipe: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise RecipeError(f"{name}: {_first_line(error)}") from None
    assert isinstance(recipe, dict)
    if complete and isinstance(recipe.get("data"), dict) and recipe["data"].get("path", "") is None:
        raise RecipeError(NO_DATA.format(name=name))
    return recipe


def section(recipe: Recipe, name: str) -> dict[str, Any]:
    """Return a section as a mapping, empty if the recipe has none. Raises RecipeError for anything else."""
    node = recipe.get(name)
    if not isinstance(node, dict | None):
        raise RecipeError(f"{name}: expected a mapping")
    return node or {}


def type_of(recipe: Recipe, name: str) -> str | None:
    """Return the type of the part in a section; None if there is no part, as in untrusted recipes."""
    node = recipe.get(name)
    return str(node.get("type")) if isinstance(node, dict) else None


def find(name: str, family: str) -> Path:
    """Return the file of a recipe: a path, else ./recipes/<family>/<name>.yaml, else the package's."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        if os.path.isfile(path):  # unlike Path.is_file, false for a name that is too long
            return path
        raise RecipeError(f"no recipe file {name}")
    for root in roots():
        path = root / family / f"{name}.yaml"
        if os.path.isfile(path) and not name.startswith("_"):
            return path
    for other, command in FAMILIES.items():
        if other != family and name in names(other):
            raise RecipeError(f"recipe '{name}' is of `dalle {command}`, not of `dalle {FAMILIES[family]}`")
    raise RecipeError(f"no {family} recipe '{name}'{suggest(name, names(family))}")


def locate(name: str, family: str | None = None) -> tuple[str, str] | None:
    """Return (family, name) of a recipe named `family/name`, by its file, or by a name that only one family has.

    Returns None for any other name. Raises RecipeError when the family is unknown or must be given.
    """
    if family is not None:
        if family not in FAMILIES:
            raise RecipeError(f"--family: no family '{family}'{suggest(family, FAMILIES)}")
        return family, name.removeprefix(f"{family}/")
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if os.path.isfile(path) and path.resolve().parent.name not in FAMILIES:
            raise RecipeError(f"{name}: which family is this recipe of? Add --family: {', '.join(FAMILIES)}")
        return path.resolve().parent.name, name
    head, _, tail = name.partition("/")
    if head in FAMILIES and tail:
        return head, tail
    families = [family for family in FAMILIES if name in names(family)]
    if len(families) > 1:
        choices = " or ".join(f"{family}/{name}" for family in families)
        raise RecipeError(f"several families have a recipe '{name}': use {choices}")
    return (families[0], name) if families else None


def all_names() -> list[str]:
    """Return `family/name` of every recipe."""
    return [f"{family}/{name}" for family in FAMILIES for name in names(family)]


def of_folder(name: str) -> Path | None:
    """Return the recipe of a system in the folder of its parts; name: of the folder, or under checkpoints/."""
    files = (folder / IN_FOLDER for folder in (Path(name), Path("checkpoints") / name))
    return next((file for file in files if os.path.isfile(file)), None)


def resolve_parts(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe of a system with parts that begin with ./ as paths in `folder`."""

    def resolve(value: Any) -> Any:
        if isinstance(value, list):
            return [resolve(item) for item in value]
        return str(folder / value) if isinstance(value, str) and value.startswith("./") else value

    parts = {key: resolve(value) for key, value in section(recipe, "parts").items()}
    return {**recipe, "parts": parts} if parts else recipe


def sources(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield (part, source) for every model of a system; a part may be several models."""
    for key, value in section(recipe, "parts").items():
        yield from ((key, str(source)) for source in (value if isinstance(value, list) else [value]))


def roots() -> list[Path]:
    """Return the folders that hold recipes: the user's ./recipes, then the package's."""
    package = Path(str(resources.files("dalle_cli")))
    packaged = package / "recipes"
    return [Path("recipes"), packaged if packaged.is_dir() else package.parent / "recipes"]


def names(family: str) -> list[str]:
    """Return the names of all recipes of a family."""
    stems = {path.stem for root in roots() for path in (root / family).glob("*.yaml")}
    return sorted(name for name in stems if not name.startswith("_"))


def headline(path: Path) -> str:
    """Return the first comment line of a recipe, which says what it is."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").rstrip() if first.startswith("#") else ""


def to_yaml(recipe: Recipe) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(recipe))


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return a line `key: old -> new` for every value in which two recipes differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted({*old, *new}):
            lines += differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        return lines
    return [] if old == new or str(old) == str(new) else [f"{path}: {old} -> {new}"]


def _read(path: Path) -> Any:
    from omegaconf import DictConfig, OmegaConf

    try:
        config = OmegaConf.create(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not a text file in UTF-8; is it a recipe?") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # broken text makes the parsers raise nearly anything
        raise RecipeError(f"{path}: not valid YAML: {_first_line(error)}") from None
    if not isinstance(config, DictConfig):
        raise RecipeError(f"{path}: a recipe is a mapping of sections")
    return config


def _migrated(config: Any) -> Any:
    """Return the recipe of an imported system in today's names: version 0.1 wrote its own, and no version."""
    from omegaconf import OmegaConf

    node: Any = OmegaConf.to_container(config, resolve=False)
    return OmegaConf.create(to_version_2(node)) if is_system_of_version_1(node) else config


def _merge(config: Any, path: Path, family: str, seen: tuple[Path, ...] = ()) -> Any:
    """Return a recipe merged over the parent that its `extends` names, recursively."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    node = config._get_node("extends")
    if node is None:
        return config
    parent = node._value()
    if not isinstance(parent, str):
        raise RecipeError(f"{path}: extends names one file")
    del config["extends"]
    seen = (*seen, path.resolve())
    # Next to the file, else among the recipes of its family; a recipe may extend the package's of the same name.
    folders = (path.parent, *(root / family for root in roots()))
    files = [file for folder in folders if os.path.isfile(file := folder / parent)]
    parent_path = next((file for file in files if file.resolve() not in seen), None)
    if parent_path is None:
        raise RecipeError(f"{path}: extends " + ("goes in a circle" if files else f"{parent}, which does not exist"))
    base = _merge(_read(parent_path), parent_path, family, seen)
    try:
        _drop_replaced(base, config)
        return OmegaConf.merge(base, config)
    except OmegaConfBaseException as error:
        raise RecipeError(f"{path}: {_first_line(error)}") from None


def _drop_replaced(base: Any, config: Any, inside: bool = False) -> None:
    """Drop what a recipe replaces as a whole: the arguments of a part of another type, and mappings that are values."""
    for key in config:
        new, old = config._get_node(key), base._get_node(key)
        if _is_mapping(new) and _is_mapping(old):
            types = [node._get_node("type")._value() for node in (new, old) if "type" in node]
            if len(set(types)) > 1 or (inside and _is_value(new) and _is_value(old)):
                base.pop(key)
            else:
                _drop_replaced(old, new, True)


def _is_value(node: Any) -> bool:
    """Return whether a mapping in a section is the value of one argument, such as weights by name, and not parts."""
    return _is_mapping(node) and "type" not in node and not any(_is_mapping(node._get_node(key)) for key in node)


def _is_mapping(node: Any) -> bool:
    from omegaconf import DictConfig

    return isinstance(node, DictConfig) and isinstance(node._content, dict)


def _override(config: Any, word: str, family: str, accepts: Accepts | None, say: Callable[[str], None]) -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    key, equals, text = word.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RecipeError(f"{word!r} is not an override; write key=value, such as optim.lr=1e-4")
    sections = SECTIONS.get(family, TRAINING)
    if key.split(".")[0] not in sections:
        raise RecipeError(f"{key}: no section '{key.split('.')[0]}'{suggest(key.split('.')[0], sections)}")
    try:
        if key.endswith(".type") and accepts:
            _drop_refused(config, key.removesuffix(".type"), text, accepts, say)
        replaced = "." in key and _is_value(OmegaConf.select(config, key))
        OmegaConf.update(config, key, _value(text), force_add=True, merge=not replaced)
    except RecipeError:
        raise
    except (OmegaConfBaseException, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise RecipeError(f"{key}: cannot be set: {_first_line(error)}") from None


def _drop_refused(config: Any, path: str, name: str, accepts: Accepts, say: Callable[[str], None]) -> None:
    """Remove the arguments that a part of another type does not take."""
    from omegaconf import DictConfig, OmegaConf

    node = OmegaConf.select(config, path)
    allowed = accepts(path, name)
    if allowed is None or not isinstance(node, DictConfig) or node.get("type") == name:
        return
    dropped = [key for key in list(node) if key != "type" and key not in allowed]
    for key in dropped:
        del node[key]  # `pop` would need the value, which may be open
    if dropped:
        say(f"{path}.type={name}: dropped {', '.join(map(str, dropped))}, which '{name}' does not take")


def _value(text: str) -> Any:
    """Return lists and mappings read as YAML, and anything else as text, which the signature types."""
    import yaml

    if text[:1] in "[{" and text:
        try:
            return yaml.load(text, Loader=yaml.BaseLoader)  # makes strings and containers only
        except yaml.YAMLError as error:
            raise ValueError(_first_line(error)) from None
    return None if text in ("null", "~") else text


def _first_line(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    mark = getattr(error, "problem_mark", None)  # of YAML
    if mark is not None:
        return f"{getattr(error, 'problem', '')} (line {mark.line + 1}, column {mark.column + 1})"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
