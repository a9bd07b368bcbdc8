import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalle_cli.data.scenes.glyphs import BACKGROUNDS, TINTS, GlyphSet, MissingFont, glyph_set
from dalle_cli.data.scenes.grammar import (
    HELD_OUT,
    KINDS,
    RELATIONS,
    Scene,
    Thing,
    caption,
    combinations,
    held_out,
    invent,
    is_countable,
    is_plural,
    parse,
    plural,
    sign_words,
    withheld,
)

SHAPES = glyph_set("shapes")
# Two glyphs of each trap: plurals, "and", "with" and "of" within names, numbers at their start.
TRAPS = GlyphSet(
    name="traps",
    names=(
        *("cat", "horse", "chair", "avocado", "grapes", "two hearts", "three button mouse", "mouse", "hour hand"),
        *("bow and arrow", "bread", "face with smiling eyes", "ball of yarn", "unicorn", "umbrella", "fish"),
    ),
    textures=("avocado", "ball of yarn", "bow and arrow"),
    bodies=("chair", "horse", "umbrella"),
    own_colours=True,
    sign="chair",
    drawn=False,
)


@pytest.fixture(params=["shapes", "traps", "everyday", "emoji"])
def glyphs(request) -> GlyphSet:
    if request.param == "traps":
        return TRAPS
    try:
        return glyph_set(request.param)
    except MissingFont as error:
        pytest.skip(str(error))


def test_captions_read_back_to_the_scene_they_were_made_from(glyphs):
    for seed in range(300):
        rng = random.Random(seed)
        scene = invent(rng, glyphs, KINDS, 0.4, 0.3)
        assert parse(caption(scene), glyphs) == scene, caption(scene)
        varied = caption(scene, rng)
        assert parse(varied, glyphs) == scene, varied


@pytest.mark.parametrize(
    ("scene", "text"),
    [
        (Scene((Thing("cat"),)), "a cat"),
        (Scene((Thing("umbrella", "orange"),), None, "orange"), "an orange umbrella on an orange background"),
        (Scene((Thing("chair", None, "avocado"),)), "an avocado chair"),
        (Scene((Thing("cat", "red", count=3),)), "three red cats"),
        (Scene((Thing("grapes"), Thing("mouse")), "left of"), "grapes left of a mouse"),
        (Scene((Thing("bow and arrow"), Thing("bread"))), "a bow and arrow and a bread"),
        (
            Scene((Thing("hour hand"), Thing("unicorn")), "above", "grey"),
            "an hour hand above a unicorn on a grey background",
        ),
        (Scene((Thing("chair", says="cat"),), None, "pink"), "a sign that says cat on a pink background"),
        (Scene((Thing("two hearts"),)), "two hearts"),
        (Scene((Thing("face with smiling eyes"),)), "a face with smiling eyes"),
    ],
)
def test_captions(scene, text):
    assert caption(scene) == text
    assert parse(text, TRAPS) == scene


@pytest.mark.parametrize(
    ("text", "scene"),
    [
        ("A Red Circle.", Scene((Thing("circle", "red"),))),
        ("red circle", Scene((Thing("circle", "red"),))),
        ("the red circle  on  blue background", Scene((Thing("circle", "red"),), None, "blue")),
        ("a picture of one red circle", Scene((Thing("circle", "red"),))),
        ("an emoji of two red circles", Scene((Thing("circle", "red", count=2),))),
        ("a sign that says hello", Scene((Thing("square", says="hello"),))),
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


def test_scenes_are_as_asked(glyphs):
    for kind in KINDS:
        for seed in range(30):
            scene = invent(random.Random(seed), glyphs, {kind: 1.0}, 1.0, 1.0)
            assert scene.kind == kind
            assert scene.background in BACKGROUNDS
            for thing in scene.things:
                assert thing.glyph in (*glyphs.names, glyphs.sign)
                assert scene.background != thing.colour
                assert thing.texture != thing.glyph
                if kind in ("single", "pair", "relation", "count"):
                    assert thing.colour in TINTS
            assert (scene.relation in RELATIONS) == (kind == "relation")
        plain = invent(random.Random(0), TRAPS, {kind: 1.0}, 0.0, 0.0)
        assert plain.background is None
        assert all(thing.colour is None for thing in plain.things)


def test_about_a_tenth_of_the_combinations_is_held_out(glyphs):
    found = {c for seed in range(1500) for c in combinations(invent(random.Random(seed), glyphs, KINDS, 0.4, 0.3))}
    share = sum(any(withheld(scene)) for scene in map(_scene_of, found) if scene) / sum(
        map(bool, map(_scene_of, found))
    )
    assert 0.04 < share < 0.2


def _scene_of(combination: tuple[str, ...]) -> Scene | None:
    """A scene with this one combination and no other."""
    kind, first, second = combination
    if kind == "wear":
        return Scene((Thing(second, None, first),))
    if kind == "tint":
        return Scene((Thing(second, first),))
    if kind == "pair":
        return Scene((Thing(first), Thing(second)))
    return Scene((Thing(second),), None, first) if kind == "ground" else None


def test_the_known_combinations_are_held_out_whatever_else_a_scene_shows():
    for _, texture, body in HELD_OUT:
        assert held_out(Scene((Thing(body, None, texture),)))
        assert held_out(Scene((Thing("cat"), Thing(body, None, texture)), "left of"))
    assert not held_out(Scene((Thing("chair"),)))


def test_a_pair_is_held_out_in_both_orders():
    names = SHAPES.names
    pairs = [(a, b) for a in names for b in names if a < b]
    held = [held_out(Scene((Thing(a), Thing(b)))) for a, b in pairs]
    assert held == [held_out(Scene((Thing(b), Thing(a)), "above")) for a, b in pairs]
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


def test_plurals_of_a_set_are_told_apart(glyphs):
    names = [name for name in glyphs.names if is_countable(name)]
    assert len({plural(name) for name in names}) == len(names)


def test_signs_say_short_words_of_the_set(glyphs):
    words = sign_words(glyphs)
    assert len(words) >= 2
    assert all(word in glyphs.names and len(word) <= 4 and word.isalpha() for word in words)
