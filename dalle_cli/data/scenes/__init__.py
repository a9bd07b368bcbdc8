"""Scenes: the built-in data, images of objects with exact captions, rendered on demand without any download."""

import random
from collections.abc import Iterable, Mapping

from .. import sources
from .grammar import KINDS, RELATIONS, caption, held_out, invent
from .objects import load_object_set
from .render import place, render


@sources.register("scenes")
class Scenes:
    """Endless captioned scenes; sample i is a function of (seed, i).

    objects: set of objects: "shapes", "everyday", "words" or "emoji". samples: length of an epoch. scene_weights:
    weights of the kinds single, texture, pair, relation, count and sign; a kind left out has weight 0.
    relation_weights: weights of "left of", "right of", "above" and "below"; None weighs all alike. background_prob:
    probability of a colored background. color_prob: probability that an object is recolored. held_out: False leaves
    out the combinations kept for evaluation, True generates only scenes that contain one. caption_variants: vary the
    wording of captions. random_positions: vary where objects are placed; fixed positions are learned several times
    faster. seed: of the scenes.
    """

    def __init__(
        self,
        size: int,
        objects: str = "everyday",
        samples: int = 1_000_000,
        scene_weights: dict[str, float] | None = None,
        relation_weights: dict[str, float] | None = None,
        background_prob: float = 0.4,
        color_prob: float = 0.3,
        held_out: bool = False,
        caption_variants: bool = True,
        random_positions: bool = True,
        seed: int = 0,
    ):
        self.size = size
        self.object_set = load_object_set(objects)
        self.kinds = _weights("scene_weights", KINDS if scene_weights is None else scene_weights, KINDS)
        self.relations = relation_weights and _weights("relation_weights", relation_weights, RELATIONS)
        self.background, self.color = background_prob, color_prob
        self.held_out, self.caption_variants, self.random_positions, self.seed = (
            held_out,
            caption_variants,
            random_positions,
            seed,
        )
        self.blocks = [samples]

    def read(self, block: int, index: int, with_image: bool = True) -> dict:
        rng = random.Random(f"{self.seed}/{index}")
        scene = self.scene(rng)
        text = caption(scene, rng if self.caption_variants else None)
        image = None
        if with_image:
            placed = place(scene, rng, self.random_positions)
            image = render(scene, placed, self.size, self.object_set.drawn)
        return {"image": image, "text": text, "key": f"scene-{index:09d}"}

    def scene(self, rng: random.Random):
        """A scene on the right side of the split between training and held-out combinations."""
        for _ in range(10_000):
            scene = invent(rng, self.object_set, self.kinds, self.background, self.color, self.relations)
            if held_out(scene) == self.held_out:
                return scene
        raise ValueError(
            f"data.held_out={str(self.held_out).lower()} leaves no scenes: give data.scene_weights others than "
            f"{', '.join(kind for kind, weight in self.kinds.items() if weight > 0)}"
        )


def _weights(name: str, given: Mapping[str, float], known: Iterable[str]) -> dict[str, float]:
    """Weights by name. Raises ValueError for an unknown name, and where there is nothing to choose from."""
    unknown = set(given) - set(known)
    if unknown or not sum(given.values()) > 0:
        raise ValueError(f"data.{name} takes weights of {', '.join(known)}; got {', '.join(sorted(unknown)) or 'none'}")
    return dict(given)
