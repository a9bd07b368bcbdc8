import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalle_cli.data.scenes.grammar import (
    HELD_OUT,
    KINDS,
    RELATIONS,
    Scene,
    SceneObject,
    caption,
    combinations,
    held_out,
    held_out_combinations,
    invent,
    is_countable,
    is_plural,
    parse,
    plural,
    sign_words,
)
from dalle_cli.data.scenes.objects import BACKGROUNDS, COLORS, MissingFont, ObjectSet, load_object_set

SHAPES = load_object_set("shapes")
# Two object_set of each trap: plurals, "and", "with" and "of" within names, numbers at their start.
TRAPS = ObjectSet(
    name="traps",
    names=(
        *("cat", "horse", "chair", "avocado", "grapes", "two hearts", "three button mouse", "mouse", "hour hand"),
        *("bow and arrow", "bread", "face with smiling eyes", "ball of yarn", "unicorn", "umbrella", "fish"),
    ),
    textures=("avocado", "ball of yarn", "bow and arrow"),
    bodies=("chair", "horse", "umbrella"),
    natural_colors=True,
    sign="chair",
    drawn=False,
)


@pytest.fixture(params=["shapes", "traps", "everyday", "emoji"])
def object_set(request) -> ObjectSet:
    if request.param == "traps":
        return TRAPS
    try:
        return load_object_set(request.param)
    except MissingFont as error:
        pytest.skip(str(error))


def test_captions_read_back_to_the_scene_they_were_made_from(object_set):
    for seed in range(300):
        rng = random.Random(seed)
        scene = invent(rng, object_set, KINDS, 0.4, 0.3)
        assert parse(caption(scene), object_set) == scene, caption(scene)
        varied = caption(scene, rng)
        assert parse(varied, object_set) == scene, varied


@pytest.mark.parametrize(
    ("scene", "text"),
    [
        (Scene((SceneObject("cat"),)), "a cat"),
        (Scene((SceneObject("umbrella", "orange"),), None, "orange"), "an orange umbrella on an orange background"),
        (Scene((SceneObject("chair", None, "avocado"),)), "an avocado chair"),
        (Scene((SceneObject("cat", "red", count=3),)), "three red cats"),
        (Scene((SceneObject("grapes"), SceneObject("mouse")), "left of"), "grapes left of a mouse"),
        (Scene((SceneObject("bow and arrow"), SceneObject("bread"))), "a bow and arrow and a bread"),
        (
            Scene((SceneObject("hour hand"), SceneObject("unicorn")), "above", "grey"),
            "an hour hand above a unicorn on a grey background",
        ),
        (Scene((SceneObject("chair", says="cat"),), None, "pink"), "a sign that says cat on a pink background"),
        (Scene((SceneObject("two hearts"),)), "two hearts"),
        (Scene((SceneObject("face with smiling eyes"),)), "a face with smiling eyes"),
    ],
)
def test_captions(scene, text):
    assert caption(scene) == text
    assert parse(text, TRAPS) == scene


@pytest.mark.parametrize(
    ("text", "scene"),
    [
        ("A Red Circle.", Scene((SceneObject("circle", "red"),))),
        ("red circle", Scene((SceneObject("circle", "red"),))),
        ("the red circle  on  blue background", Scene((SceneObject("circle", "red"),), None, "blue")),
        ("a picture of one red circle", Scene((SceneObject("circle", "red"),))),
        ("an emoji of two red circles", Scene((SceneObject("circle", "red", count=2),))),
        ("a sign that says hello", Scene((SceneObject("square", says="hello"),))),
    ],
)
def test_other_wordings_are_understood(text, scene):
    assert parse(text, SHAPES) == scene


@pytest.mark.parametrize(
    "text",
    ["", "a", "circle of red", "a red", "a red circle on", "two circle", "a mauve circle", "a cat", "and and and"],
)
def test_captions_outside_the_grammar_are_none(text):
    assert parse(text, SHAPES) is None


@given(
    st.text(max_size=60) | st.lists(st.sampled_from(["a", "red", "circle", "and", "on", "two", "star", "background"]))
)
def test_reading_never_fails(text):
    words = text if isinstance(text, str) else " ".join(text)
    scene = parse(words, SHAPES)
    assert scene is None or parse(caption(scene), SHAPES) == scene


def test_scenes_are_as_asked(object_set):
    for kind in KINDS:
        for seed in range(30):
            scene = invent(random.Random(seed), object_set, {kind: 1.0}, 1.0, 1.0)
            assert scene.kind == kind
            assert scene.background in BACKGROUNDS
            for obj in scene.objects:
                assert obj.name in (*object_set.names, object_set.sign)
                assert scene.background != obj.color
                assert obj.texture != obj.name
                if kind in ("single", "pair", "relation", "count"):
                    assert obj.color in COLORS
            assert (scene.relation in RELATIONS) == (kind == "relation")
        plain = invent(random.Random(0), TRAPS, {kind: 1.0}, 0.0, 0.0)
        assert plain.background is None
        assert all(obj.color is None for obj in plain.objects)


def test_about_a_tenth_of_the_combinations_is_held_out(object_set):
    found = {c for seed in range(1500) for c in combinations(invent(random.Random(seed), object_set, KINDS, 0.4, 0.3))}
    share = sum(any(held_out_combinations(scene)) for scene in map(_scene_of, found) if scene) / sum(
        map(bool, map(_scene_of, found))
    )
    assert 0.04 < share < 0.2


def _scene_of(combination: tuple[str, ...]) -> Scene | None:
    """A scene with this one combination and no other."""
    kind, first, second = combination
    if kind == "wear":
        return Scene((SceneObject(second, None, first),))
    if kind == "tint":
        return Scene((SceneObject(second, first),))
    if kind == "pair":
        return Scene((SceneObject(first), SceneObject(second)))
    return Scene((SceneObject(second),), None, first) if kind == "ground" else None


def test_the_known_combinations_are_held_out_whatever_else_a_scene_shows():
    for _, texture, body in HELD_OUT:
        assert held_out(Scene((SceneObject(body, None, texture),)))
        assert held_out(Scene((SceneObject("cat"), SceneObject(body, None, texture)), "left of"))
    assert not held_out(Scene((SceneObject("chair"),)))


def test_a_pair_is_held_out_in_both_orders():
    names = SHAPES.names
    pairs = [(a, b) for a in names for b in names if a < b]
    held = [held_out(Scene((SceneObject(a), SceneObject(b)))) for a, b in pairs]
    assert held == [held_out(Scene((SceneObject(b), SceneObject(a)), "above")) for a, b in pairs]
    assert 0 < sum(held) < len(held)


@pytest.mark.parametrize(
    ("name", "several"),
    [
        ("cat", "cats"),
        ("mouse", "mice"),
        ("snowman", "snowmen"),
        ("maple leaf", "maple leaves"),
        ("ball of yarn", "balls of yarn"),
        ("tropical fish", "tropical fish"),
        ("tomato", "tomatoes"),
        ("butterfly", "butterflies"),
        ("key", "keys"),
        ("bus", "buses"),
        ("cross", "crosses"),
        ("lady beetle", "lady beetles"),
    ],
)
def test_plurals(name, several):
    assert plural(name) == several


@pytest.mark.parametrize(
    ("name", "several", "countable"),
    [
        ("grapes", True, False),
        ("french fries", True, False),
        ("broccoli", True, False),
        ("cactus", False, True),
        ("hourglass", False, True),
        ("tennis", False, True),
        ("face with smiling eyes", False, False),
        ("bow and arrow", False, False),
    ],
)
def test_what_takes_no_article_and_what_is_counted(name, several, countable):
    assert is_plural(name) is several
    assert is_countable(name) is countable


def test_plurals_of_a_set_are_told_apart(object_set):
    names = [name for name in object_set.names if is_countable(name)]
    assert len({plural(name) for name in names}) == len(names)


def test_signs_say_short_words_of_the_set(object_set):
    words = sign_words(object_set)
    assert len(words) >= 2
    assert all(word in object_set.names and len(word) <= 4 and word.isalpha() for word in words)
