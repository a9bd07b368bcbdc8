"""The suite's captions, for other systems to generate images of."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from ...data.scenes.objects import load_object_set
from .. import suite
from ..protocol import Option, Result

EXAMPLES = ("dalle evaluate captions > captions.jsonl",)


@dataclass(frozen=True)
class Captions(Result):
    """The items of the suite, as prompts."""

    items: tuple[suite.SuiteItem, ...]
    titled = False

    def to_json(self) -> list[dict[str, Any]]:
        return [{"prompt": item.caption, "category": item.category} for item in self.items]

    def table(self) -> list[str]:
        return [json.dumps(line) for line in self.to_json()]


def captions(
    num_captions: Annotated[int, Option("Captions, equally many of each category.", 1, 1_000_000, ("-n",))] = 200,
    objects: str = "everyday",
) -> Captions:
    """Print the held-out captions of `evaluate scenes` as JSON lines, for any other system."""
    return Captions(tuple(suite.suite(load_object_set(objects), num_captions)))
