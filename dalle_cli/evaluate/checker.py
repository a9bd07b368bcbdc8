"""The scene checker: a program, not a model, that decides whether an image shows what its caption says.

Scenes are rendered by a program, so that what a caption says can be rendered again and overlaid on the image:

1. The background is the most common color along the border.
2. The expected object, in every color, is searched for at every position and size; the best boxes are kept.
3. In such a box the image must resemble the object in one of its appearances (`MIN_SIMILARITY`). It must not lie on the
   path from there to any other object (`MAX_PATH`: 0 is the expected object itself, 1 the other one, 0.5 halfway
   between), as a whole or in one half of the box, nor to a smear. No other object near that box may resemble the image
   more.
4. Color, texture and word are checked there in the same manner: not on the path to another color, texture or word.

The renderings are blurred as much as the image is: a caption says nothing about blur, position or size.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..data.scenes.grammar import Scene, SceneObject, parse, sign_words
from ..data.scenes.objects import BACKGROUNDS, COLORS, WHITE, ObjectSet
from .matching import CANVAS, ImageOnBackground, Renderings, blurred, path_position, similarity

MIN_SIMILARITY = 0.75  # of the image and the expected object in its best appearance
MARGIN = 0.01  # by how much another object must resemble the image more to be taken for what is there
MAX_PATH = 0.35  # how far the image may lie on the path to another object, color, texture or word
MAX_HALF_PATH = 0.5  # the same in one half of the box, and on the path to a smear of the object
SMEAR = 4.0  # cells of blur that leave only the colors and a rough outline
BLURS = 0.0, 0.7, 1.4  # cells of blur that are accepted
# Renderings that differ in less than this fraction of their energy are not distinguished. The limit is higher for
# colors, because an object may have the named color anyway: "a yellow banana" hardly differs from "a banana".
MIN_DIFFERENCE, MIN_COLOR_DIFFERENCE = 0.002, 0.02
BACKGROUND_DISTANCE = 0.2  # in RGB (each 0 to 1): the maximum from a named background
BACKGROUND_UNIFORMITY = 0.4  # the minimum fraction of the border that has the background's color
MIN_OFFSET = 0.12  # of the image's side: the minimum distance of two centers along the stated direction
MAX_EXTRA = 0.1  # of the area that differs from the background, the maximum outside of the expected objects
MAX_TEXTURES = 32  # that an expected texture is compared with


@dataclass(frozen=True)
class Claim:
    """One statement of a caption, and whether the image satisfies it. actual: what is there instead, if it does not.

    part: object, color, texture, sign, count, relation, background, rest (nothing else is there) or caption.
    """

    part: str
    expected: str
    correct: bool
    actual: str = ""


@dataclass(frozen=True)
class SceneResult:
    """What the checker found in an image. boxes: (left, top, side) of each detected object, in fractions of a side."""

    claims: tuple[Claim, ...]
    boxes: tuple[tuple[float, float, float], ...] = ()

    @property
    def exact_match(self) -> bool:
        """Whether every claim of the caption is correct."""
        return all(claim.correct for claim in self.claims)

    def correct(self, *parts: str) -> bool:
        """Return whether every claim about these parts is correct."""
        return all(claim.correct for claim in self.claims if claim.part in parts)


@dataclass(frozen=True)
class Detection:
    """What was detected in a box (3,). window: the image there; blur: its blur; actual: "" if as expected."""

    box: Tensor
    window: Tensor
    blur: float
    actual: str


class SceneChecker:
    """Decides whether images show what captions in the grammar of the scenes say."""

    def __init__(self, object_set: ObjectSet):
        self.object_set = object_set
        self.renderings = Renderings(object_set)

    @torch.no_grad()
    def check(self, image: Image.Image | np.ndarray | Tensor, scene: Scene | str) -> SceneResult:
        """Check one image. image: PIL, uint8 (H, H, 3), or float (3, H, H) in [-1, 1]; scene: or its caption.

        A caption outside the grammar gives one incorrect claim, `caption`. Raises ValueError if the image is not
        square.
        """
        expected = parse(scene, self.object_set) if isinstance(scene, str) else scene
        if expected is None:
            return SceneResult((_claim("caption", str(scene), "outside the grammar of the scenes"),))
        split = ImageOnBackground(image)
        claims, groups, occupied = [_background(split, expected.background)], [], []
        for obj in expected.objects:
            detections = self._detect(split, obj, occupied)
            matches = [detection for detection in detections if not detection.actual]
            actual = obj.name if matches else detections[0].actual if detections else "nothing"
            claims.append(_claim("object", obj.name, actual))
            claims += self._attributes(split, obj, matches[: obj.count])
            claims.append(_claim("count", str(obj.count), str(len(matches))))
            groups.append([detection.box for detection in matches])
            occupied += groups[-1][: obj.count]
        if expected.relation:
            claims.append(_relation(expected.relation, groups))
        boxes = [box for group in groups for box in group]
        claims.append(_rest(split, boxes))
        corners = [(torch.cat([box[:2] - box[2] / 2, box[2:]]) / CANVAS).tolist() for box in boxes]
        return SceneResult(tuple(claims), tuple(map(tuple, corners)))

    def _detect(self, split: ImageOnBackground, obj: SceneObject, occupied: list[Tensor]) -> list[Detection]:
        """Return what is in the boxes that resemble the object in any appearance most, best first, no two the same."""
        variants = self._variants(obj)
        renderings = self.renderings.on(split.background, variants)
        plain = [i for i, variant in enumerate(variants) if variant.texture in (None, obj.texture)]
        boxes, windows, similar = split.refine(split.search(renderings[plain]), renderings)
        detections, taken = [], list(occupied)
        for i in similar.amax(1).argsort(descending=True).tolist():
            best = int(similar[i].argmax())
            if any(_overlap(boxes[i], box) for box in taken) or (detections and similar[i, best] < MIN_SIMILARITY):
                continue
            blur = max(BLURS, key=lambda sigma: similarity(windows[i], blurred(renderings[None, best], sigma)).item())
            actual = self._actual(split, obj, variants[best], renderings[best], boxes[i], windows[i], blur)
            detections.append(Detection(boxes[i], windows[i], blur, actual))
            taken.append(boxes[i])
        return detections

    def _actual(
        self,
        split: ImageOnBackground,
        obj: SceneObject,
        variant: SceneObject,
        rendering: Tensor,
        box: Tensor,
        window: Tensor,
        blur: float,
    ) -> str:
        """Return what is in a box instead of the expected object; "" if it is the expected one.

        variant, rendering: the object in the appearance that resembles the window most.
        """
        names, others = self._others(split, obj, variant)
        expected, others = blurred(rendering, blur), blurred(others, blur)
        similar = similarity(window, expected[None]).item()
        whole, half = path_position(window, expected, others, MIN_DIFFERENCE)
        if whole.max() > MAX_PATH:
            return names[int(whole.argmax())]
        if half.max() > MAX_HALF_PATH:
            return f"partly {names[int(half.argmax())]}"
        smear = blurred(rendering, SMEAR)[None]
        if path_position(window, rendering, smear, MIN_DIFFERENCE)[0].item() > MAX_HALF_PATH:
            return "a smear"
        index, rivals = split.best_near(box, others, count=4)
        if rivals.max() > similar + MARGIN:
            return names[int(index[rivals.argmax()])]
        return "" if similar >= MIN_SIMILARITY else "nothing similar"

    def _others(self, split: ImageOnBackground, obj: SceneObject, variant: SceneObject) -> tuple[list[str], Tensor]:
        """Return all other objects as the image might show them: as detected, as expected, and without attributes."""
        colors = COLORS if obj.says and not self.object_set.natural_colors else (variant.color,)
        plain = [SceneObject("", None if self.object_set.natural_colors else color) for color in colors]
        attributed = [] if obj.says else [replace(one, name="", count=1) for one in (variant, obj)]
        rivals = [self.renderings.all_on(split.background, one) for one in dict.fromkeys(plain + attributed)]
        names = self.object_set.names * len(rivals)
        others = [i for i, name in enumerate(names) if name != obj.name]
        return [names[i] for i in others], torch.cat(rivals)[others]

    def _attributes(self, split: ImageOnBackground, obj: SceneObject, detections: list[Detection]) -> list[Claim]:
        """Check color, texture and word of detected objects; there is no claim about what has no alternatives.

        Each attribute is checked with the others left open: of all appearances that have it, the one that resembles the
        image most is compared with all appearances that do not.
        """
        variants = self._variants(obj)
        renderings = self.renderings.on(split.background, variants)
        claims = []
        for part, field in (("color", "color"), ("texture", "texture"), ("sign", "says")):
            values = [getattr(variant, field) or "none" for variant in variants]
            expected = getattr(obj, field) or "none"
            same = [i for i, value in enumerate(values) if value == expected]
            rivals = [i for i, value in enumerate(values) if value != expected]
            if not rivals:
                continue
            actual = expected if detections else "nothing"
            min_difference = MIN_COLOR_DIFFERENCE if part == "color" else MIN_DIFFERENCE
            for detection in detections:
                shown = blurred(renderings, detection.blur)
                best = same[int(similarity(detection.window, shown[same]).argmax())]
                whole, _ = path_position(detection.window, shown[best], shown[rivals], min_difference)
                if whole.max() > MAX_PATH:
                    actual = values[rivals[int(whole.argmax())]]
            claims.append(_claim(part, expected, actual))
        return claims

    def _variants(self, obj: SceneObject) -> tuple[SceneObject, ...]:
        """Return the same object in every color, in every texture that it can have, or with every word."""
        single, object_set = replace(obj, count=1), self.object_set
        if obj.says:
            return tuple(dict.fromkeys((*(replace(single, says=word) for word in sign_words(object_set)), single)))
        textures = [name for name in object_set.textures if name != obj.name] if obj.name in object_set.bodies else []
        textures = textures[:: 1 + len(textures) // MAX_TEXTURES]
        if object_set.natural_colors:
            variants = [SceneObject(obj.name, color) for color in (None, *COLORS)]
            variants += [SceneObject(obj.name, None, texture) for texture in textures]
        else:
            variants = [SceneObject(obj.name, color, texture) for texture in (None, *textures) for color in COLORS]
        return tuple(dict.fromkeys((*variants, single)))


def _claim(part: str, expected: str, actual: str) -> Claim:
    return Claim(part, expected, actual == expected, "" if actual == expected else actual)


def _overlap(a: Tensor, b: Tensor) -> bool:
    return bool(((a[:2] - b[:2]).abs() < max(a[2], b[2]) / 2).all())


def _background(split: ImageOnBackground, name: str | None) -> Claim:
    """Check that the border is uniform and its color nearest to the named one; None means white."""
    names = {"white": WHITE, **BACKGROUNDS}
    distances = (torch.tensor(list(names.values())) / 255 - split.background).norm(dim=1)
    actual = list(names)[int(distances.argmin())]
    if split.uniformity < BACKGROUND_UNIFORMITY or distances.min() > BACKGROUND_DISTANCE:
        actual = "no known color"
    return _claim("background", name or "white", actual)


def _relation(relation: str, groups: list[list[Tensor]]) -> Claim:
    """Check that the first object lies in the stated direction of the second, more than in any other."""
    if not all(groups):
        return _claim("relation", relation, "not both")
    right, down = ((groups[1][0] - groups[0][0])[:2] / CANVAS).tolist()
    if max(abs(right), abs(down)) < MIN_OFFSET:
        return _claim("relation", relation, "in the same position")
    if abs(right) > abs(down):
        return _claim("relation", relation, "left of" if right > 0 else "right of")
    return _claim("relation", relation, "above" if down > 0 else "below")


def _rest(split: ImageOnBackground, boxes: list[Tensor]) -> Claim:
    """Check that there is nothing else: almost nothing outside of the boxes differs from the background."""
    differs = F.avg_pool2d(split.difference, 2).norm(dim=0) > 0.1
    total = differs.sum().item()
    for x, y, size in [box.tolist() for box in boxes]:
        left, top = (max(0, math.floor((center - 0.56 * size) / 2)) for center in (x, y))
        right, bottom = (math.ceil((center + 0.56 * size) / 2) for center in (x, y))
        differs[top:bottom, left:right] = False
    return _claim("rest", "nothing", "nothing" if differs.sum().item() <= MAX_EXTRA * total else "something")
