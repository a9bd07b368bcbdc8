import string
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalle_cli import registry
from dalle_cli.data import sources
from dalle_cli.models import models
from dalle_cli.registry import RecipeError, Registry, bind, convert
from dalle_cli.systems import systems
from dalle_cli.tasks import tasks
from dalle_cli.text import tokenizers


class Tower:
    def __init__(self, width: int, rate: float = 0.0, bias: bool = True, run: str | None = None):
        self.width, self.rate, self.bias, self.run = width, rate, bias, run
        self.built.append(width)

    built: ClassVar[list[int]] = []


class Pair:
    def __init__(self, image: Tower, sizes: list[int], towers: list | None = None, by_name: dict | None = None):
        self.image, self.sizes, self.towers, self.by_name = image, sizes, towers, by_name


@pytest.fixture
def parts(monkeypatch):
    registry = Registry("model", "dalle_cli.models")
    monkeypatch.setattr(registry, "_loaded", True)
    registry.register("tower")(Tower)
    registry.register("pair")(Pair)
    return registry


IMAGE = {"type": "tower", "width": 8}


def test_nested_parts_are_built(parts):
    node = {"type": "pair", "image": IMAGE, "sizes": [1, 2], "towers": [IMAGE], "by_name": {"a": {**IMAGE, "width": 9}}}
    pair = parts.build(node)
    assert isinstance(pair.image, Tower)
    assert pair.image.width == 8
    assert pair.towers[0].width == 8
    assert pair.by_name["a"].width == 9


def test_given_arguments_reach_the_part(parts):
    assert parts.build(IMAGE, run="here").run == "here"
    assert parts.build({"type": "pair", "image": IMAGE, "sizes": []}, run="here").image.run is None


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"type": "towr"}, "model.type: no model 'towr' (did you mean 'tower'?)"),
        ({"type": "tower", "widht": 8}, "model.widht: model 'tower' takes no 'widht' (did you mean 'width'?)"),
        ({"type": "tower"}, "model: model 'tower' needs 'width'"),
        ({"type": "tower", "width": "eight"}, "model.width: expected a whole number, got 'eight'"),
        ({"type": "tower", "width": 8, "bias": "no"}, "model.bias: expected true or false, got 'no'"),
        (
            {"type": "pair", "sizes": [], "image": {"type": "tower", "widht": 8}},
            "model.image.widht: model 'tower' takes no 'widht' (did you mean 'width'?)",
        ),
        (
            {"type": "pair", "sizes": [], "image": IMAGE, "towers": [IMAGE, {"type": "tower"}]},
            "model.towers.1: model 'tower' needs 'width'",
        ),
        (
            {"type": "pair", "sizes": [], "image": IMAGE, "by_name": {"a": {"type": "twer"}}},
            "model.by_name.a.type: no model 'twer' (did you mean 'tower'?)",
        ),
        ({"type": "pair", "sizes": [], "image": 5}, "model.image: expected a mapping with a type, got 5"),
        ({"type": "pair", "sizes": [1, "x"], "image": IMAGE}, "model.sizes.1: expected a whole number, got 'x'"),
        ({"width": 8}, "model: expected a mapping with a type; one of pair, tower"),
        ("tower", "model: expected a mapping with a type; one of pair, tower"),
        (None, "model: expected a mapping with a type; one of pair, tower"),
        ({"type": ["tower"]}, "model.type: no model '['tower']' (did you mean 'tower'?)"),
    ],
)
def test_errors_come_before_building(parts, node, message):
    Tower.built.clear()
    with pytest.raises(RecipeError) as error:
        parts.build(node)
    assert str(error.value) == message
    assert not Tower.built


def test_given_argument_is_refused_in_recipe(parts):
    with pytest.raises(RecipeError, match=r"model\.run: model 'tower' takes no 'run'"):
        parts.bind({**IMAGE, "run": "there"}, given=["run"])


def test_typed_nodes_stay_nodes(parts):
    node = {"type": "pair", "image": {"type": "tower", "width": "010", "rate": "1e-4"}, "sizes": "[1, 2]"}
    typed = parts.typed(node)
    assert typed == {"type": "pair", "image": {"type": "tower", "width": 10, "rate": 1e-4}, "sizes": [1, 2]}
    assert parts.typed(typed) == typed


def test_package_is_imported_once():
    registry = Registry("text", "dalle_cli.text")
    assert registry.names() == []  # imported, though its parts are registered elsewhere
    assert {"dalle", "dvae", "clip", "vit"} <= set(models.names())


CONVERSIONS = [
    ("010", int, 10),
    ("1e3", int, 1000),
    (10.0, int, 10),
    (str(10**30), int, 10**30),
    ("-3", int, -3),
    ("1e-4", float, 1e-4),
    (3, float, 3.0),
    ("010", str, "010"),
    ("no", str, "no"),
    (1.5, str, "1.5"),
    ("true", bool, True),
    ("False", bool, False),
    ("photos", Path, Path("photos")),
    ("null", int | None, None),
    ("None", float | None, None),
    ("~", str | None, None),
    ("5", int | None, 5),
    ("null", str, "null"),
    ("[0.9, 0.98]", list[float], [0.9, 0.98]),
    ("0.9,0.98", list[float], [0.9, 0.98]),
    ("[]", list[int], []),
    (["010", 3], list[int], [10, 3]),
    ({"a": "010"}, dict[str, int], {"a": 10}),
    ("cosine", Literal["cosine", "linear"], "cosine"),
    ("2", Literal[1, 2], 2),
    ("a=b=c", str, "a=b=c"),
    ({"any": ["thing"]}, Any, {"any": ["thing"]}),
]


@pytest.mark.parametrize(("value", "kind", "expected"), CONVERSIONS)
def test_signature_types_values(value, kind, expected):
    converted = convert(value, kind, "x")
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ("1.5", int, "whole number"),
        (1.5, int, "whole number"),
        (True, int, "whole number"),
        ("", int, "whole number"),
        ("0x10", int, "whole number"),
        ("1e400", int, "whole number"),
        ("nan", int, "whole number"),
        (None, int, "whole number"),
        ([1], int, "whole number"),
        (True, float, "a number"),
        ("fast", float, "a number"),
        (None, float, "a number"),
        ("yes", bool, "true or false"),
        (1, bool, "true or false"),
        (None, str, "text"),
        (["a"], str, "text"),
        (False, str, "text"),
        (5, list[int], "a list"),
        (None, list[int], "a list"),
        ([1], dict, "a mapping"),
        ("cosin", Literal["cosine", "linear"], "is not one of cosine, linear"),
        ("x", int | None, "whole number"),
    ],
)
def test_invalid_values_are_refused(value, kind, words):
    with pytest.raises(RecipeError, match=words) as error:
        convert(value, kind, "optim.x")
    assert str(error.value).startswith("optim.x: ")
    assert "\n" not in str(error.value)


def test_long_values_are_shortened():
    with pytest.raises(RecipeError) as error:
        convert("x" * 10_000, int, "x")
    assert len(str(error.value)) < 200


@given(st.integers())
def test_integers_are_exact(number):
    assert convert(str(number), int, "x") == number
    assert convert(number, int, "x") == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive_their_text(number):
    assert convert(repr(number), float, "x") == number


@given(st.lists(st.text(string.ascii_letters + string.digits + "./_-", min_size=1)))
def test_lists_survive_text(words):
    assert convert("[" + ", ".join(words) + "]", list[str], "x") == words


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, st.sampled_from([int, float, bool, str, Path, int | None, list[int], list[list[float]], dict[str, bool]]))
def test_any_value_converts_or_fails(value, kind):
    message = "x"
    try:
        convert(value, kind, "x")
    except RecipeError as error:
        message = str(error)
    assert message.startswith("x")


def test_functions_have_signatures_too():
    def part(lr: float, *, steps: int = 1):
        pass

    assert bind(part, {"lr": "1e-4", "steps": "2"}, "optim") == {"lr": 1e-4, "steps": 2}
    with pytest.raises(RecipeError, match=r"^optim\.stps: optim takes no 'stps' \(did you mean 'steps'\?\)$"):
        bind(part, {"lr": 1, "stps": 2}, "optim")


def test_suggest_lists_all_words():
    def part(lr: float, steps: int = 1):
        pass

    with pytest.raises(RecipeError, match=r"takes no 'zzz' \(known: lr, steps\)"):
        bind(part, {"lr": 1, "zzz": 2}, "optim")


@pytest.mark.parametrize("registry", [models, tasks, sources, tokenizers, systems], ids=lambda one: one.section)
def test_every_part_has_a_schema(registry):
    assert registry.names()
    for name in registry.names():
        with pytest.raises(RecipeError, match="takes no 'no such argument'"):
            registry.bind({"type": name, "no such argument": 1})


def test_keys_are_documented_by_docstrings():
    class Base:
        """A base.

        width: channels of a
        block. depth: blocks; heads, depth_2: two keys.
        """

    class Part(Base):
        def __init__(self, model: Base, width: int, depth: int = 3, heads: float | None = None, depth_2: str = "x"):
            """Ignored."""

    keys = {key.name: key for key in registry.documented_keys(Part, given={"model"})}
    assert list(keys) == ["width", "depth", "heads", "depth_2"]
    assert keys["width"] == registry.Key("width", "integer", None, True, "Channels of a block.")
    assert (keys["depth"].text, keys["depth"].default) == ("Blocks", 3)
    assert (keys["heads"].text, keys["heads"].type) == ("Two keys.", "number or null")
    assert keys["depth_2"].text == "Two keys."


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (bool, "true or false"),
        (list[int] | None, "list of integer or null"),
        (Literal["a", "b"], "a or b"),
        (dict[str, float], "mapping"),
        (Registry, "part"),
    ],
)
def test_types_have_readable_names(kind, name):
    assert registry.type_name(kind) == name
