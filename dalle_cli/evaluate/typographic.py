"""`dalle probe typographic`: a word on a picture turns CLIP's judgement, and the decoder still sees the thing.

Ramesh et al. 2022, section 4 and figure 6; Goh et al. 2021.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .. import images
from ..exits import USAGE, Failure
from ..generate.latent_editor import DecodeRequest, Job, LatentEditor, group_by_request, require_readable
from ..generate.outputs import Collected
from ..generate.reconstruct import expand_folders
from ..generate.requests import PlannedImage, plan_images, read_requests
from ..generate.sheets import result_cells, save_rows

LONGEST = 40  # letters of a word
WIDE, HIGH = 0.8, 0.3  # of the picture's side, the most that a label takes
STAGES = BEFORE, AFTER, VARIATION = "before", "after", "variation"


def labelled(picture: Image.Image, word: str) -> Image.Image:
    """A picture with a paper label in its lower middle that says a word, as large as there is room for."""
    side = min(picture.size)
    font = ImageFont.load_default(size=100)
    left, top, right, bottom = font.getbbox(word)
    if right <= left or bottom <= top:
        raise Failure(f"WORD {word!r}: nothing of it can be seen on a label", USAGE)
    size = 100 * min(WIDE * side / (right - left), HIGH * side / (bottom - top))
    font = ImageFont.load_default(size=max(size, 1.0))
    left, top, right, bottom = font.getbbox(word)
    edge = max(side / 32, 1)
    x, y = (picture.width - (right - left)) / 2, picture.height * 0.7 - (bottom - top) / 2
    page = picture.copy()
    pen = ImageDraw.Draw(page)
    box = (x - edge, y - edge, x + right - left + edge, y + bottom - top + edge)
    pen.rectangle(box, fill="white", outline=(160, 160, 160))
    pen.text((x - left, y - top), word, fill="black", font=font)
    return page


@dataclass(frozen=True)
class Labels:
    """Captions that a picture is held against. told: their embeddings (L, e); sharp: the factor of the cosines."""

    captions: Sequence[str]
    told: Tensor
    sharp: float

    def probabilities(self, z: Tensor) -> Tensor:
        """Zero-shot probabilities of the captions for an embedding (e,). Radford et al. 2021, section 3.1.2."""
        return (self.sharp * torch.cosine_similarity(z[None], self.told)).softmax(dim=0)


def typographic(
    pictures: Sequence[str],
    word: str,
    captions: Sequence[str],
    count: int,
    job: Job,
    results: Collected | None = None,
) -> int:
    """Judge pictures before and after a word is pasted on them, and `count` pictures drawn of the latter's embedding.

    Returns the exit code. captions: labels to choose among; one of the word is added where none is. Results have
    `stage` (one of STAGES), the likeliest `label` with its `probability`, and the probabilities of `object`, the
    likeliest label before that is not the word's, and of `word`. Raises Failure, RecipeError, PromptError, BadImage,
    CheckpointError.
    """
    editor = LatentEditor("probe typographic", job, inverts=False)
    word = " ".join(word.split())
    if len(word) > LONGEST:
        raise Failure(f"WORD of {len(word)} letters: nobody can read it on a label; at most {LONGEST}", USAGE)
    labelled(Image.new("RGB", (32, 32)), word)
    asked = read_requests(expand_folders(pictures), plain_field="image", file_fields=("image",))
    requests = require_readable(asked)
    captions, of_word = _with(captions, word)
    if len(captions) < 2:
        raise Failure("nothing to choose among beside the word: give labels", USAGE)
    many = 2 + count
    drawn = plan_images(requests, max(count, 1), job.seed)
    items = [
        replace(drawn[r * max(count, 1) + max(i - 2, 0)], index=many * r + i)
        for r in range(len(requests))
        for i in range(many)
    ]

    def shots(todo: list[PlannedImage]) -> Iterator[DecodeRequest]:
        told = editor.system.embed_texts(captions).float().cpu()
        labels = Labels(captions, told, editor.system.clip.model.logit_scale.exp().item())
        for own in group_by_request(todo, many):
            try:
                picture = images.open_image(own[0].request.fields["image"])
                before, after, measure = _looked(editor, labels, of_word, picture, word)
            except images.BadImage as error:
                yield from (DecodeRequest(item, error=str(error)) for item in own)
                continue
            for item in own:
                stage = STAGES[min(item.index % many, 2)]
                (ready, z) = before if stage == BEFORE else after
                ready = None if stage == VARIATION else images.resize(ready, editor.system.size)
                yield DecodeRequest(item, z, measure=measure, ready=ready, details={"stage": stage})

    settings = {"word": word, "labels": list(captions)}
    columns = ("stage", "label", "probability", "object", "word")
    code = editor.run(items, shots, settings, results, columns, [one for one in asked if one.failed])
    if code is not None:
        return code
    if job.sheet:
        rows = [[editor.results_by_index[i + j] for j in range(many)] for i in range(0, len(items), many)]
        save_rows(job.sheet, [result_cells(row, _caption) for row in rows])
    return editor.results.finish()


def _looked(
    editor: LatentEditor, labels: Labels, of_word: int, picture: Image.Image, word: str
) -> tuple[tuple[Image.Image, Tensor], tuple[Image.Image, Tensor], Callable[[Tensor], dict[str, Any]]]:
    """The square of a picture and its embedding, the same with the label on it, and what measures embeddings."""
    before = images.center_crop(picture, min(picture.size))
    after = labelled(before, word)
    z, turned = editor.encode(before).z, editor.encode(after).z
    first = labels.probabilities(z)
    first[of_word] = -1
    numbers = {"object": int(first.argmax()), "word": of_word}

    def measure(own: Tensor) -> dict[str, Any]:
        found = labels.probabilities(own)
        best = int(found.argmax())
        shares = {"probability": best, **numbers}
        return {"label": labels.captions[best], **{key: round(found[i].item(), 4) for key, i in shares.items()}}

    return (before, z), (after, turned), measure


def _with(captions: Sequence[str], word: str) -> tuple[list[str], int]:
    """Distinct captions with one that says the word, and which that is."""
    found = list(dict.fromkeys(captions))
    names = [{caption, caption.removeprefix("a ").removeprefix("an ")} for caption in found]
    of_word = next((i for i, known in enumerate(names) if word in known), len(found))
    article = "an" if word[:1].lower() in tuple("aeiou") else "a"
    return (found if of_word < len(found) else [*found, f"{article} {word}"]), of_word


def _caption(result: dict[str, Any]) -> str:
    return f"{result['stage']}: {result['label']} {result['probability']:.1%}"
