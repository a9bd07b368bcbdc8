"""Parts by name: a registry per recipe section, with the constructor's signature as the schema.

A recipe node is a mapping with a `type`. `Registry.build` finds the part of that name, checks every key against the
constructor's signature and converts it to the annotated type before anything is constructed, and builds nested nodes
with the same registry. `bind` only checks, for sections that one plain function reads.
"""

import difflib
import importlib
import inspect
import math
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

Part = typing.TypeVar("Part", bound=Callable)


@dataclass(frozen=True)
class Key:
    """A key that a recipe can set. default: None if `required`. text: its sentence, empty if it has none."""

    name: str
    type: str
    default: Any
    required: bool
    text: str


class RecipeError(ValueError):
    """A recipe or an override is invalid; the message names the key and the remedy."""


class Registry:
    """The parts of one recipe section; the first look-up imports all modules of `package`."""

    def __init__(self, section: str, package: str):
        self.section = section
        self.package = package
        self._parts: dict[str, Callable] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[Part], Part]:
        def add(part: Part) -> Part:
            assert name not in self._parts, f"{self.section} '{name}' is registered twice"
            self._parts[name] = part
            return part

        return add

    def names(self) -> list[str]:
        self._load()
        return sorted(self._parts)

    def get(self, name: str, path: str | None = None) -> Callable:
        """Return the part called `name`. Raises RecipeError with the nearest name when there is none."""
        self._load()
        if not isinstance(name, str) or name not in self._parts:
            raise RecipeError(f"{path or self.section}: no {self.section} '{name}'{suggest(name, self._parts)}")
        return self._parts[name]

    def bind(self, node: Any, path: str | None = None, given: Iterable[str] = ()) -> tuple[Callable, dict[str, Any]]:
        """Return the part of a node, and its arguments checked and typed, nested nodes included and left unbuilt.

        given: names of arguments that the caller supplies and that a recipe may not.
        """
        path = path or self.section
        if not isinstance(node, Mapping) or "type" not in node:
            raise RecipeError(f"{path}: expected a mapping with a type; one of {', '.join(self.names())}")
        part = self.get(node["type"], f"{path}.type")
        arguments = {key: value for key, value in node.items() if key != "type"}
        bound = bind(part, arguments, path, given, f"{self.section} '{node['type']}'")
        return part, {key: self._check_nested(value, f"{path}.{key}") for key, value in bound.items()}

    def typed(self, node: Any, path: str | None = None, given: Iterable[str] = ()) -> dict[str, Any]:
        """Return a node as `bind` reads it: every value of the type that its part's signature says."""
        _, arguments = self.bind(node, path, given)
        return {"type": node["type"], **arguments}

    def build(self, node: Any, path: str | None = None, **given: Any) -> Any:
        """Construct the part of a node; `given` are arguments that no recipe can hold, such as a built model."""
        part, arguments = self.bind(node, path, given)
        path = path or self.section
        built = {key: self._build_nested(value, f"{path}.{key}") for key, value in arguments.items()}
        accepted = set(inspect.signature(part).parameters)
        try:
            return part(**built, **{key: value for key, value in given.items() if key in accepted})
        except _VALUE_ERRORS as error:
            if isinstance(error, ValueError) and type(error) is not ValueError:  # its message is complete
                raise
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RecipeError(first if _KEY.match(first) else f"{path}: {first}") from error

    def _check_nested(self, value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            if "type" in value:
                return self.typed(value, path)
            return {key: self._check_nested(item, f"{path}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [self._check_nested(item, f"{path}.{i}") for i, item in enumerate(value)]
        return value

    def _build_nested(self, value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            if "type" in value:
                return self.build(value, path)
            return {key: self._build_nested(item, f"{path}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [self._build_nested(item, f"{path}.{i}") for i, item in enumerate(value)]
        return value

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.walk_packages(package.__path__, f"{self.package}."):
            importlib.import_module(module.name)


def bind(
    part: Callable, values: Mapping[str, Any], path: str, given: Iterable[str] = (), label: str | None = None
) -> dict[str, Any]:
    """Check a mapping against the signature of `part`, and return its values converted to the annotated types.

    Raises RecipeError for unknown keys (with a suggestion), missing ones, and values of the wrong type.
    """
    parameters = inspect.signature(part).parameters
    hints = typing.get_type_hints(part.__init__ if inspect.isclass(part) else part)
    given = set(given)
    allowed = [name for name in parameters if name not in given]
    label = label or path
    for key in values:
        if key not in allowed:
            raise RecipeError(f"{path}.{key}: {label} takes no '{key}'{suggest(key, allowed)}")
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in values and name not in given:
            raise RecipeError(f"{path}: {label} needs '{name}'")
    return {key: convert(value, hints.get(key, Any), f"{path}.{key}") for key, value in values.items()}


def convert(value: Any, kind: Any, path: str) -> Any:
    """Return `value` as the annotated type `kind`, which decides how text is read: `010` is ten, `no` can be a name."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, options, path)
    if origin is typing.Literal:
        for option in options:
            if value == option or (isinstance(value, str) and value == str(option)):
                return option
        check_choice(value, map(str, options), path)
    if origin is list or kind is list:
        item = options[0] if options else Any
        if isinstance(value, str):
            value = [part.strip() for part in value.strip("[] ").split(",") if part.strip()]
        if not isinstance(value, list | tuple):
            raise RecipeError(f"{path}: expected a list, got {_show(value)}")
        return [convert(element, item, f"{path}.{i}") for i, element in enumerate(value)]
    if origin is dict or kind is dict:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{path}: expected a mapping, got {_show(value)}")
        item = options[1] if options else Any
        return {key: convert(element, item, f"{path}.{key}") for key, element in value.items()}
    if kind in _SCALARS:
        return _SCALARS[kind](value, path)
    if inspect.isclass(kind) and not isinstance(value, Mapping):
        raise RecipeError(f"{path}: expected a mapping with a type, got {_show(value)}")
    return value


def documented_keys(part: Callable, given: Iterable[str] = ()) -> list[Key]:
    """Return the keys of a part with types, defaults and sentences, in the order of its signature.

    A constructor documents its keys in its docstring, or in that of a base class: `key: sentence.` or
    `key, other: sentence.` at the start of a line or after the end of a sentence. given: names to leave out.
    """
    parameters = inspect.signature(part).parameters
    hints = typing.get_type_hints(part.__init__ if inspect.isclass(part) else part)
    texts: dict[str, str] = {}
    documented = reversed(part.__mro__[:-1]) if inspect.isclass(part) else [part]
    for owner in documented:
        texts |= _sentences(owner.__doc__ or "", set(parameters))
    factories = {}
    if is_dataclass(part):
        factories = {one.name: one.default_factory for one in fields(part) if one.default_factory is not MISSING}
    keys = []
    for name, parameter in parameters.items():
        if name in set(given) or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        default = factories[name]() if name in factories else None if required else parameter.default
        keys.append(Key(name, type_name(hints.get(name, Any)), default, required, texts.get(name, "")))
    return keys


def _sentences(docstring: str, names: set[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        pieces = re.split(r"(?:^|(?<=[.;] )|(?<=\n))(\w+(?:,\s\w+)*):\s", paragraph)
        for head, text in zip(pieces[1::2], pieces[2::2]):
            sentence = " ".join(text.split()).rstrip(";")
            texts |= {name: sentence[:1].upper() + sentence[1:] for name in re.split(r",\s", head) if name in names}
    return texts


def type_name(kind: Any) -> str:
    """Return an annotated type as a user reads it: `integer`, `number or null`, `"adamw" or "sgd"`."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if option is type(None) else type_name(option) for option in options)
    if origin is typing.Literal:
        return " or ".join(map(str, options))
    if origin is list or kind is list:
        return f"list of {type_name(options[0])}" if options else "list"
    if origin is dict or kind is dict:
        return "mapping"
    names = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path", Any: "any"}
    return names.get(kind, "part")


def check_choice(value: Any, choices: Iterable[str], path: str) -> None:
    """Raise RecipeError, which lists all choices, unless `value` is one of them."""
    choices = list(choices)
    if value not in choices:
        raise RecipeError(f"{path}: {_show(value)} is not one of {', '.join(choices)}")


def suggest(word: Any, words: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the nearest of `words`, or a list of all if none is near."""
    words = sorted(words)
    near = difflib.get_close_matches(str(word), words, n=1)
    if near:
        return f" (did you mean '{near[0]}'?)"
    return f" (known: {', '.join(words)})" if 0 < len(words) <= 40 else ""


def _convert_union(value: Any, options: tuple, path: str) -> Any:
    empty = value is None or (isinstance(value, str) and value.lower() in ("null", "none", "~"))
    if type(None) in options and empty:
        return None
    errors = []
    for option in options:
        if option is type(None):
            continue
        try:
            return convert(value, option, path)
        except RecipeError as error:
            errors.append(error)
    raise errors[0]


def _boolean(value: Any, path: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise RecipeError(f"{path}: expected true or false, got {_show(value)}")


def _integer(value: Any, path: str) -> int:
    if isinstance(value, bool):
        raise RecipeError(f"{path}: expected a whole number, got {_show(value)}")
    try:
        fractional = isinstance(value, float) or (isinstance(value, str) and any(c in value for c in "eE."))
        number = float(value) if fractional else int(value)  # int() of digits is exact at any size
        if int(number) != number:
            raise ValueError
        return int(number)
    except (ValueError, TypeError, OverflowError):
        raise RecipeError(f"{path}: expected a whole number, got {_show(value)}") from None


def _number(value: Any, path: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        return number
    except (ValueError, TypeError, OverflowError):
        raise RecipeError(f"{path}: expected a number, got {_show(value)}") from None


def _text(value: Any, path: str) -> str:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise RecipeError(f"{path}: expected text, got {_show(value)}")


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# What parts, and torch within them, raise for values of the right type that are impossible.
_KEY = re.compile(r"\w+(\.\w+)+: ")  # a key of the recipe, which the message then names already
_VALUE_ERRORS = (ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError)

_SCALARS: dict[Any, Callable[[Any, str], Any]] = {
    bool: _boolean,
    int: _integer,
    float: _number,
    str: _text,
    Path: lambda value, path: Path(_text(value, path)),
}
