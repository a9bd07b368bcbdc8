"""Typographic attacks: a word pasted on an image changes CLIP's label, while the decoder still sees the object.

Ramesh et al. 2022, section 4 and figure 6; Goh et al. 2021.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ... import images
from ...data.scenes.grammar import Scene, SceneObject, caption
from ...data.scenes.objects import load_object_set
from ...exits import USAGE, Failure
from ...generate.image_requests import group_by_request, read_image_requests, readable_requests
from ...generate.latent_editor import DecodeRequest, LatentEditor
from ...generate.outputs import Collected
from ...generate.requests import PlannedImage, plan_images
from ...generate.sheets import result_cells
from ..generated import Generation
from ..protocol import Option, Result, Rows

EXAMPLES = ('dalle probe typographic apple.png iPod --label "an apple" --label "a dog" -n 8',)
FIGURES = ("stage", "label", "probability", "object", "word")
COLUMNS = ("index", "seed", "skipped", *FIGURES, "similarity", "psnr", "path", "prompt")
MAX_LENGTH = 40  # characters of a word
MAX_WIDTH, MAX_HEIGHT = 0.8, 0.3  # of a label, in fractions of the image's side
STAGES = BEFORE, AFTER, VARIATION = "before", "after", "variation"


@dataclass(frozen=True)
class Attack(Result):
    """Results of the images: `stage` (one of STAGES), the most probable `label` with its `probability`, and the
    probabilities of `object`, the most probable label before the attack, and of `word`.
    """

    images: list[dict[str, Any]]
    rows: Rows
    exit_code: int
    sheet = True

    def to_json(self) -> list[dict[str, Any]]:
        return []  # printed image by image

    def table(self) -> list[str]:
        return []


@dataclass(frozen=True)
class Labels:
    """Captions to classify images by. embeddings: (L, e); logit_scale: the factor of the cosines; word: the index of
    the label that says the word.
    """

    captions: Sequence[str]
    embeddings: Tensor
    logit_scale: float
    word: int

    def probabilities(self, z: Tensor) -> Tensor:
        """Return zero-shot probabilities for an embedding (e,). Radford et al. 2021, section 3.1.2."""
        return (self.logit_scale * torch.cosine_similarity(z[None], self.embeddings)).softmax(dim=0)


def typographic(
    image: Annotated[str, Option("An image file; - reads JSON lines.", metavar="IMAGE", positional=True)],
    word: Annotated[str, Option("The word to paste on it.", metavar="WORD", positional=True)],
    label: Annotated[
        list[str] | None, Option("A caption to choose from; repeatable. Default: one per object of the scenes.")
    ] = None,
    objects: str = "everyday",
    num_images: Annotated[
        int, Option("Variations of the attacked image.", 0, 1_000_000, ("-n",), panel="Sampling")
    ] = 4,
    recipe: Annotated[str, Option("System recipe of type unclip.", metavar="NAME|PATH", panel="Model")] = "unclip",
    options: Generation = Generation(),  # noqa: B008  (frozen)
    results: Collected | None = None,
) -> Attack | None:
    """Paste a word on an image: what CLIP then classifies it as, and what the decoder generates from its embedding.

    label: a label of the word is added where there is none. results: where each image is reported when it is finished.
    Returns None for a dry run. Raises Failure, RecipeError, PromptError, BadImage, CheckpointError.
    """
    captions = label or [caption(Scene((SceneObject(name),))) for name in load_object_set(objects).names]
    editor, results = (
        LatentEditor("probe typographic", options.latent_options(recipe), inverts=False),
        results or Collected(),
    )
    word = " ".join(word.split())
    if len(word) > MAX_LENGTH:
        raise Failure(f"WORD of {len(word)} characters is too long to read on a label: at most {MAX_LENGTH}", USAGE)
    paste_label(Image.new("RGB", (32, 32)), word)
    lines = read_image_requests([image])
    requests = readable_requests(lines)
    captions, index_of_word = _with_word(captions, word)
    if len(captions) < 2:
        raise Failure("the word is the only label: give others with --label", USAGE)
    width, per_image = 2 + num_images, max(num_images, 1)
    planned = plan_images(requests, per_image, options.seed)
    items = [
        replace(planned[r * per_image + max(i - 2, 0)], index=width * r + i)
        for r in range(len(requests))
        for i in range(width)
    ]

    def decode_requests(todo: list[PlannedImage]) -> Iterator[DecodeRequest]:
        embeddings = editor.system.embed_texts(captions).float().cpu()
        labels = Labels(captions, embeddings, editor.system.clip.model.logit_scale.exp().item(), index_of_word)
        for group in group_by_request(todo, width):
            try:
                original = images.open_image(group[0].request.fields["image"])
                before, after, measure = _encode(editor, labels, original, word)
            except images.BadImage as error:
                yield from (DecodeRequest(item, error=str(error)) for item in group)
                continue
            for item in group:
                stage = STAGES[min(item.index % width, 2)]
                (ready, z) = before if stage == BEFORE else after
                ready = None if stage == VARIATION else images.resize(ready, editor.system.size)
                yield DecodeRequest(item, z, measure=measure, image=ready, details={"stage": stage})

    settings = {"word": word, "labels": list(captions)}
    failed = [line for line in lines if line.failed]
    if editor.run(items, decode_requests, settings, results, FIGURES, failed) is not None:
        return None
    grid = [[editor.results_by_index[i + j] for j in range(width)] for i in range(0, len(items), width)]
    return Attack(results.reported, [result_cells(row, _caption) for row in grid], results.finish())


def paste_label(image: Image.Image, word: str) -> Image.Image:
    """Return an image with a paper label that says a word in its lower middle, as large as fits."""
    side = min(image.size)
    font = ImageFont.load_default(size=100)
    left, top, right, bottom = font.getbbox(word)
    if right <= left or bottom <= top:
        raise Failure(f"WORD {word!r} has no visible characters", USAGE)
    size = 100 * min(MAX_WIDTH * side / (right - left), MAX_HEIGHT * side / (bottom - top))
    font = ImageFont.load_default(size=max(size, 1.0))
    left, top, right, bottom = font.getbbox(word)
    edge = max(side / 32, 1)
    x, y = (image.width - (right - left)) / 2, image.height * 0.7 - (bottom - top) / 2
    page = image.copy()
    pen = ImageDraw.Draw(page)
    box = (x - edge, y - edge, x + right - left + edge, y + bottom - top + edge)
    pen.rectangle(box, fill="white", outline=(160, 160, 160))
    pen.text((x - left, y - top), word, fill="black", font=font)
    return page


Encoded = tuple[Image.Image, Tensor]
"""An image and its embedding."""


def _encode(
    editor: LatentEditor, labels: Labels, original: Image.Image, word: str
) -> tuple[Encoded, Encoded, Callable[[Tensor], dict[str, Any]]]:
    """Return the square of an image and its embedding, the same with the label on it, and what classifies others."""
    before = images.center_crop(original, min(original.size))
    after = paste_label(before, word)
    z, attacked = editor.encode(before).z, editor.encode(after).z
    first = labels.probabilities(z)
    first[labels.word] = -1
    index_of_object = int(first.argmax())

    def classify(embedding: Tensor) -> dict[str, Any]:
        probabilities = labels.probabilities(embedding)
        best = int(probabilities.argmax())
        shown = {"probability": best, "object": index_of_object, "word": labels.word}
        values = {name: round(probabilities[i].item(), 4) for name, i in shown.items()}
        return {"label": labels.captions[best], **values}

    return (before, z), (after, attacked), classify


def _with_word(captions: Sequence[str], word: str) -> tuple[list[str], int]:
    """Return distinct captions with one that says the word, and its index."""
    distinct = list(dict.fromkeys(captions))
    names = [{text, text.removeprefix("a ").removeprefix("an ")} for text in distinct]
    index = next((i for i, known in enumerate(names) if word in known), len(distinct))
    article = "an" if word[:1].lower() in tuple("aeiou") else "a"
    return (distinct if index < len(distinct) else [*distinct, f"{article} {word}"]), index


def _caption(result: dict[str, Any]) -> str:
    return f"{result['stage']}: {result['label']} {result['probability']:.1%}"
