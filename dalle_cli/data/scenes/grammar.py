"""The grammar of scenes: what a scene can contain, its caption, and how a caption is parsed.

    object := [a] [color] [texture] name | number names | a sign that says WORD
    scene  := object | object and object | object RELATION object,   [on a COLOR background]

Color, texture and relation are exact: a caption says what was rendered and nothing else, so that a program can check
whether an image shows it. Some combinations are held out of training to measure composition.
"""

import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from .objects import BACKGROUNDS, COLORS, ObjectSet

NUMBERS = {2: "two", 3: "three"}
RELATIONS = ("left of", "right of", "above", "below")
KINDS = {"single": 4.0, "texture": 2.0, "pair": 2.0, "relation": 2.0, "count": 0.6, "sign": 0.3}
PREFIXES = ("a picture of ", "a drawing of ", "an emoji of ")
HELD_OUT_FRACTION = 0.1
# Always held out, whatever the hash says: the combinations that the project is known by.
HELD_OUT = {("wear", "avocado", "chair"), ("wear", "strawberry", "teapot"), ("wear", "tiger", "automobile")}


@dataclass(frozen=True)
class SceneObject:
    """An object with its attributes. says: the word on a sign. count: how many identical copies the scene contains."""

    name: str
    color: str | None = None
    texture: str | None = None
    says: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Scene:
    """What an image shows. relation: of the first object to the second; None leaves the positions open."""

    objects: tuple[SceneObject, ...]
    relation: str | None = None
    background: str | None = None

    @property
    def kind(self) -> str:
        first = self.objects[0]
        if len(self.objects) == 2:
            return "relation" if self.relation else "pair"
        if first.says:
            return "sign"
        if first.count > 1:
            return "count"
        return "texture" if first.texture else "single"


def invent(
    rng: random.Random,
    object_set: ObjectSet,
    kinds: dict[str, float],
    background_prob: float,
    color_prob: float,
    relations: dict[str, float] | None = None,
) -> Scene:
    """Return a random scene.

    kinds: weights by Scene.kind. background_prob: probability of a colored background. color_prob: probability that an
    object is recolored. relations: weights of RELATIONS; None weighs all alike.
    """
    kind = rng.choices(list(kinds), weights=list(kinds.values()))[0]

    def random_object(name: str | None = None) -> SceneObject:
        color = rng.choice(list(COLORS)) if not object_set.natural_colors or rng.random() < color_prob else None
        return SceneObject(name or rng.choice(object_set.names), color)

    relation = None
    if kind == "sign":
        objects = (SceneObject(object_set.sign, says=rng.choice(sign_words(object_set))),)
    elif kind == "texture":
        body = rng.choice(object_set.bodies)
        texture = rng.choice([name for name in object_set.textures if name != body])
        objects = (
            replace(random_object(body), texture=texture, **({"color": None} if object_set.natural_colors else {})),
        )
    elif kind == "count":
        name = rng.choice([name for name in object_set.names if is_countable(name)])
        objects = (replace(random_object(name), count=rng.choice(list(NUMBERS))),)
    elif kind == "single":
        objects = (random_object(),)
    else:
        first, second = rng.sample(object_set.names, 2)
        objects = (random_object(first), random_object(second))
        if kind == "relation" and relations:
            relation = rng.choices(list(relations), list(relations.values()))[0]
        elif kind == "relation":
            relation = rng.choice(RELATIONS)  # not rng.choices: the scenes of a seed must not change
    background = None
    if rng.random() < background_prob:
        background = rng.choice([name for name in BACKGROUNDS if name not in {obj.color for obj in objects}])
    return Scene(objects, relation, background)


def held_out(scene: Scene) -> bool:
    """Return whether a scene contains a combination that is held out of training."""
    return any(held_out_combinations(scene))


def held_out_combinations(scene: Scene) -> Iterator[tuple[str, ...]]:
    """Yield the combinations of a scene that are held out of training."""
    return (combination for combination in combinations(scene) if _is_held_out(combination))


def combinations(scene: Scene) -> Iterator[tuple[str, ...]]:
    """Yield the combinations of two parts that a scene shows, as (kind, part, part).

    Their words are hashed to decide what is held out, so they must never change.
    """
    for obj in scene.objects:
        if obj.texture:
            yield "wear", obj.texture, obj.name
        if obj.color:
            yield "tint", obj.color, obj.name
        if obj.count > 1:
            yield "count", str(obj.count), obj.name
        if scene.background:
            yield "ground", scene.background, obj.name
    if len(scene.objects) == 2:
        yield ("pair", *sorted(obj.name for obj in scene.objects))


@lru_cache(maxsize=65536)
def _is_held_out(combination: tuple[str, ...]) -> bool:
    return combination in HELD_OUT or zlib.crc32(" ".join(combination).encode()) % 1000 < 1000 * HELD_OUT_FRACTION


def caption(scene: Scene, rng: random.Random | None = None) -> str:
    """Return the caption of a scene; with a generator, in a random wording (no articles, "a picture of")."""
    bare = rng is not None and rng.random() < 0.2
    prefix = rng.choice(PREFIXES) if rng is not None and not bare and rng.random() < 0.15 else ""
    joint = f" {scene.relation} " if scene.relation else " and "
    text = prefix + joint.join(_phrase(obj, bare) for obj in scene.objects)
    if scene.background:
        text += f" on {_article(scene.background, bare)}{scene.background} background"
    return text


def _phrase(obj: SceneObject, bare: bool) -> str:
    if obj.says:
        return ("" if bare else "a ") + f"sign that says {obj.says}"
    words = [word for word in (obj.color, obj.texture) if word]
    if obj.count > 1:
        return " ".join([NUMBERS[obj.count], *words, plural(obj.name)])
    phrase = " ".join([*words, obj.name])
    return _article(phrase, bare or is_plural(obj.name)) + phrase


def parse(text: str, object_set: ObjectSet) -> Scene | None:
    """Return the scene that a caption describes, or None if the grammar cannot parse it. Inverse of `caption`."""
    text = " ".join(text.lower().replace(".", " ").replace(",", " ").split())
    for prefix in PREFIXES:
        text = text.removeprefix(prefix)
    background = None
    for name in BACKGROUNDS:
        for article in ("a ", "an ", ""):
            if text.endswith(f" on {article}{name} background"):
                text, background = text[: -len(f" on {article}{name} background")], name
    obj = _object(text, object_set)
    if obj:
        return Scene((obj,), None, background)
    for joint in ("and", *RELATIONS):
        start = text.find(f" {joint} ")
        while start >= 0:  # names contain "and" too: try every occurrence
            first, second = _object(text[:start], object_set), _object(text[start + len(joint) + 2 :], object_set)
            if first and second:
                return Scene((first, second), None if joint == "and" else joint, background)
            start = text.find(f" {joint} ", start + 1)
    return None


def _object(phrase: str, object_set: ObjectSet) -> SceneObject | None:
    words = phrase.split()
    count = 1
    if words and words[0] in ("a", "an", "the", "one"):
        words = words[1:]
    elif words and words[0] in NUMBERS.values() and phrase not in object_set.names:  # "two hearts" is one emoji
        count = next(number for number, word in NUMBERS.items() if word == words[0])
        words = words[1:]
    rest = " ".join(words)
    if rest.startswith("sign that says ") and count == 1:
        return SceneObject(object_set.sign, says=rest.removeprefix("sign that says "))
    names = (
        {plural(name): name for name in object_set.names} if count > 1 else {name: name for name in object_set.names}
    )
    for color in (None, *COLORS):
        if color and not rest.startswith(color + " "):
            continue
        noun = rest[len(color) + 1 :] if color else rest
        if noun in names:
            return SceneObject(names[noun], color, None, count=count)
        for texture in object_set.textures:
            if noun.startswith(texture + " ") and noun[len(texture) + 1 :] in names:
                return SceneObject(names[noun[len(texture) + 1 :]], color, texture, count=count)
    return None


def sign_words(object_set: ObjectSet) -> Sequence[str]:
    """Return the names short enough for a sign."""
    return [name for name in object_set.names if len(name) <= 4 and name.isalpha()]


PLURALS = {"grapes", "cherries", "books", "eyeglasses", "jeans", "socks", "gloves", "briefs", "shorts", "broccoli"}
SAME = ("fish", "sheep", "deer", "squid", "shrimp", "bison", "moose")
IRREGULAR = {"mouse": "mice", "goose": "geese", "tooth": "teeth", "foot": "feet", "ox": "oxen", "leaf": "leaves"}
IRREGULAR |= {"man": "men", "woman": "women", "child": "children", "person": "people", "knife": "knives"}
IRREGULAR |= {"snowman": "snowmen", "guardsman": "guardsmen"}


def is_plural(name: str) -> bool:
    """Return whether a name takes no article: a plural ("french fries", not "face with smiling eyes"), or a mass."""
    head = re.split(" (?:with|of|over|for|holding|pointing) ", name)[0]
    return head in PLURALS or (head.endswith("s") and head[-2:] not in ("ss", "us", "is", "as", "os", "vs", " s"))


def is_countable(name: str) -> bool:
    return not is_plural(name) and not any(f" {joint} " in name for joint in ("with", "and", "or"))


def plural(name: str) -> str:
    """Return the plural of a name: "slice of pizza" to "slices of pizza", "teddy bear" to "teddy bears"."""
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
