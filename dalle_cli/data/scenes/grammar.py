"""The grammar of the scenes: what may stand in one, how its caption says so, and the caption's reading back.

    thing  := [a] [colour] [texture] glyph | number glyphs | a sign that says WORD
    scene  := thing | thing and thing | thing RELATION thing,   [on a COLOUR background]

Colour, texture and relation are exact: a caption says what was drawn and nothing else, so that a program can decide
whether a picture shows it. Some combinations are held out of training to measure composition.
"""

import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from .glyphs import BACKGROUNDS, TINTS, GlyphSet

NUMBERS = {2: "two", 3: "three"}
RELATIONS = ("left of", "right of", "above", "below")
KINDS = {"single": 4.0, "texture": 2.0, "pair": 2.0, "relation": 2.0, "count": 0.6, "sign": 0.3}
PREFIXES = ("a picture of ", "a drawing of ", "an emoji of ")
HELD_OUT_SHARE = 0.1
# Always held out, whatever the hash says: the combinations that the project is known by.
HELD_OUT = {("wear", "avocado", "chair"), ("wear", "strawberry", "teapot"), ("wear", "tiger", "automobile")}


@dataclass(frozen=True)
class Thing:
    """One glyph with its attributes. says: the word on a sign. count: how many of it, alike, stand in the scene."""

    glyph: str
    colour: str | None = None
    texture: str | None = None
    says: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Scene:
    """What a picture shows. relation: how the first thing lies to the second; None leaves the places open."""

    things: tuple[Thing, ...]
    relation: str | None = None
    background: str | None = None

    @property
    def kind(self) -> str:
        first = self.things[0]
        if len(self.things) == 2:
            return "relation" if self.relation else "pair"
        if first.says:
            return "sign"
        if first.count > 1:
            return "count"
        return "texture" if first.texture else "single"


def invent(
    rng: random.Random,
    glyphs: GlyphSet,
    kinds: dict[str, float],
    background: float,
    colour: float,
    relations: dict[str, float] | None = None,
) -> Scene:
    """A random scene. kinds: weights by Scene.kind. background, colour: chances of a coloured ground and of a tint.

    relations: weights of RELATIONS; all alike, if there are none.
    """
    kind = rng.choices(list(kinds), weights=list(kinds.values()))[0]

    def thing(glyph: str | None = None) -> Thing:
        tint = rng.choice(list(TINTS)) if not glyphs.own_colours or rng.random() < colour else None
        return Thing(glyph or rng.choice(glyphs.names), tint)

    relation = None
    if kind == "sign":
        things = (Thing(glyphs.sign, says=rng.choice(sign_words(glyphs))),)
    elif kind == "texture":
        body = rng.choice(glyphs.bodies)
        texture = rng.choice([name for name in glyphs.textures if name != body])
        things = (replace(thing(body), texture=texture, **({"colour": None} if glyphs.own_colours else {})),)
    elif kind == "count":
        glyph = rng.choice([name for name in glyphs.names if is_countable(name)])
        things = (replace(thing(glyph), count=rng.choice(list(NUMBERS))),)
    elif kind == "single":
        things = (thing(),)
    else:
        first, second = rng.sample(glyphs.names, 2)
        things = (thing(first), thing(second))
        if kind == "relation" and relations:
            relation = rng.choices(list(relations), list(relations.values()))[0]
        elif kind == "relation":
            relation = rng.choice(RELATIONS)  # by its own rule: the scenes of a seed stay as they were
    ground = None
    if rng.random() < background:
        ground = rng.choice([name for name in BACKGROUNDS if name not in {t.colour for t in things}])
    return Scene(things, relation, ground)


def held_out(scene: Scene) -> bool:
    """Whether a scene holds a combination that training never shows."""
    return any(withheld(scene))


def withheld(scene: Scene) -> Iterator[tuple[str, ...]]:
    """The combinations of a scene that training never shows."""
    return (combination for combination in combinations(scene) if _is_held_out(combination))


def combinations(scene: Scene) -> Iterator[tuple[str, ...]]:
    """The combinations of two parts that a scene shows, as (kind, part, part)."""
    for thing in scene.things:
        if thing.texture:
            yield "wear", thing.texture, thing.glyph
        if thing.colour:
            yield "tint", thing.colour, thing.glyph
        if thing.count > 1:
            yield "count", str(thing.count), thing.glyph
        if scene.background:
            yield "ground", scene.background, thing.glyph
    if len(scene.things) == 2:
        yield ("pair", *sorted(thing.glyph for thing in scene.things))


@lru_cache(maxsize=65536)
def _is_held_out(combination: tuple[str, ...]) -> bool:
    return combination in HELD_OUT or zlib.crc32(" ".join(combination).encode()) % 1000 < 1000 * HELD_OUT_SHARE


def caption(scene: Scene, rng: random.Random | None = None) -> str:
    """The caption of a scene; with a generator, in one of the wordings of people (no articles, "a picture of")."""
    bare = rng is not None and rng.random() < 0.2
    prefix = rng.choice(PREFIXES) if rng is not None and not bare and rng.random() < 0.15 else ""
    joint = f" {scene.relation} " if scene.relation else " and "
    text = prefix + joint.join(_phrase(thing, bare) for thing in scene.things)
    if scene.background:
        text += f" on {_article(scene.background, bare)}{scene.background} background"
    return text


def _phrase(thing: Thing, bare: bool) -> str:
    if thing.says:
        return ("" if bare else "a ") + f"sign that says {thing.says}"
    words = [word for word in (thing.colour, thing.texture) if word]
    if thing.count > 1:
        return " ".join([NUMBERS[thing.count], *words, plural(thing.glyph)])
    phrase = " ".join([*words, thing.glyph])
    return _article(phrase, bare or is_plural(thing.glyph)) + phrase


def parse(text: str, glyphs: GlyphSet) -> Scene | None:
    """The scene that a caption describes, or None when the grammar does not know it. Inverse of `caption`."""
    text = " ".join(text.lower().replace(".", " ").replace(",", " ").split())
    for prefix in PREFIXES:
        text = text.removeprefix(prefix)
    ground = None
    for name in BACKGROUNDS:
        for article in ("a ", "an ", ""):
            if text.endswith(f" on {article}{name} background"):
                text, ground = text[: -len(f" on {article}{name} background")], name
    thing = _thing(text, glyphs)
    if thing:
        return Scene((thing,), None, ground)
    for joint in ("and", *RELATIONS):
        start = text.find(f" {joint} ")
        while start >= 0:  # names hold "and" too: try every place
            first, second = _thing(text[:start], glyphs), _thing(text[start + len(joint) + 2 :], glyphs)
            if first and second:
                return Scene((first, second), None if joint == "and" else joint, ground)
            start = text.find(f" {joint} ", start + 1)
    return None


def _thing(phrase: str, glyphs: GlyphSet) -> Thing | None:
    words = phrase.split()
    count = 1
    if words and words[0] in ("a", "an", "the", "one"):
        words = words[1:]
    elif words and words[0] in NUMBERS.values() and phrase not in glyphs.names:  # "two hearts" is one picture
        count = next(number for number, word in NUMBERS.items() if word == words[0])
        words = words[1:]
    rest = " ".join(words)
    if rest.startswith("sign that says ") and count == 1:
        return Thing(glyphs.sign, says=rest.removeprefix("sign that says "))
    names = {plural(name): name for name in glyphs.names} if count > 1 else {name: name for name in glyphs.names}
    for colour in (None, *TINTS):
        if colour and not rest.startswith(colour + " "):
            continue
        noun = rest[len(colour) + 1 :] if colour else rest
        if noun in names:
            return Thing(names[noun], colour, None, count=count)
        for texture in glyphs.textures:
            if noun.startswith(texture + " ") and noun[len(texture) + 1 :] in names:
                return Thing(names[noun[len(texture) + 1 :]], colour, texture, count=count)
    return None


def sign_words(glyphs: GlyphSet) -> Sequence[str]:
    """Words short enough to stand on a sign."""
    return [name for name in glyphs.names if len(name) <= 4 and name.isalpha()]


PLURALS = {"grapes", "cherries", "books", "eyeglasses", "jeans", "socks", "gloves", "briefs", "shorts", "broccoli"}
SAME = ("fish", "sheep", "deer", "squid", "shrimp", "bison", "moose")
IRREGULAR = {"mouse": "mice", "goose": "geese", "tooth": "teeth", "foot": "feet", "ox": "oxen", "leaf": "leaves"}
IRREGULAR |= {"man": "men", "woman": "women", "child": "children", "person": "people", "knife": "knives"}
IRREGULAR |= {"snowman": "snowmen", "guardsman": "guardsmen"}


def is_plural(name: str) -> bool:
    """Names that take no article: plural ("french fries", not "face with smiling eyes") or a mass."""
    head = re.split(" (?:with|of|over|for|holding|pointing) ", name)[0]
    return head in PLURALS or (head.endswith("s") and head[-2:] not in ("ss", "us", "is", "as", "os", "vs", " s"))


def is_countable(name: str) -> bool:
    return not is_plural(name) and not any(f" {joint} " in name for joint in ("with", "and", "or"))


def plural(name: str) -> str:
    """The plural of a glyph's name: "slice of pizza" to "slices of pizza", "teddy bear" to "teddy bears"."""
    if " of " in name:
        head, tail = name.split(" of ", 1)
        return f"{plural(head)} of {tail}"
    *words, last = name.split(" ")
    if last in IRREGULAR:
        last = IRREGULAR[last]
    elif last in SAME or is_plural(last):
        pass
    elif last.endswith(("s", "x", "z", "ch", "sh")) or last in ("tomato", "potato", "mango", "volcano"):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join([*words, last])


def _article(phrase: str, bare: bool) -> str:
    if bare:
        return ""
    vowel = (phrase[0] in "aeiou" and not phrase.startswith(("uni", "eu", "one"))) or phrase.startswith("hour")
    return "an " if vowel else "a "
