"""`dalle inpaint`: parts of pictures drawn anew from words; one part of many pictures, or many parts of one in turn."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from .. import distributed, images
from ..console import Progress
from ..exits import USAGE, Failure
from ..recipe import section
from ..registry import RecipeError
from ..systems import device, systems
from .inpaint_crop import Box, crop_around, inpaint_mask, restore_alpha
from .metadata import Origin, digest
from .outputs import Collected, Outputs, Results
from .requests import GenerationRequest, PlannedImage, PromptError, plan_images, read_requests
from .sample import check_offload, load_system, prepare
from .sheets import check_sheet, save_sheet


@dataclass(frozen=True)
class Job:
    """What the command line asks for.

    image: a file, or - for lines of requests, of standard input or `lines`. script: lines applied in turn.
    """

    image: str
    words: Sequence[str] = ()
    mask: str | None = None
    box: str | None = None
    script: str | None = None
    recipe: str = "glide-inpaint"
    count: int = 1
    seed: int | None = None
    out: str = "out"
    sheet: str | None = None
    options: dict[str, Any] | None = None
    overwrite: bool = False
    skip_existing: bool = False
    batch_size: int | None = None
    precision: str = "auto"
    as_json: bool = False
    quiet: bool = False
    offload: bool = False
    lines: Sequence[str] = ()


def inpaint(job: Job, results: Collected | None = None) -> int:
    """Draw the asked parts anew; returns the exit code.

    A picture's size and all of it outside the hole stay as they are. Steps of a script go on from the picture before
    them. Raises Failure, RecipeError, PromptError, BadImage, CheckpointError.
    """
    system_recipe, part, parts, options = diffusion(job.recipe, job.options, "inpainting")

    # ---- all that can go wrong without a model goes wrong here ----------------------------------------------------
    asked = _checked(_requests(job), job.image == "-")
    requests = [one for one in asked if not one.failed]
    if job.sheet:
        check_sheet(job.sheet, job.overwrite or job.skip_existing)
    items = plan_images(requests, job.count, job.seed)
    outputs = Outputs(job.out, items, job.overwrite, job.skip_existing)
    results = results or Results(job.as_json)
    skipped = {result["index"]: result for result in outputs.skipped}
    if job.script:  # what was drawn on a picture that is gone is drawn again
        first = min((item.index for item in outputs.todo), default=len(items))
        skipped = {index: result for index, result in skipped.items() if index < first}

    check_offload(part, job.offload)
    place = device.choose(job.precision, job.offload)
    system = systems.build(system_recipe["system"], "system", device=place, **parts) if outputs.todo else None
    files = system.files(options) if system else {}
    made_by = Origin("inpaint", job.recipe, asdict(options), {key: digest(path) for key, path in files.items()})
    progress = Progress("inpaint", -(-(len(items) - len(skipped)) // distributed.world_size()), quiet=job.quiet)
    before: str | None = None  # the picture that a script goes on from
    many = job.count * (1 if job.script else distributed.world_size())

    def drawn(own: list[PlannedImage]) -> Iterator[Image.Image]:
        for _, some in itertools.groupby(own, lambda item: item.index // job.count):
            yield from _draw(system, list(some), options, job, part.together, progress)

    for start in range(0, len(items), many):
        group = items[start : start + many]
        if job.script and before:
            group = [replace(item, request=_on(item.request, before)) for item in group]
        busy = [item for item in group if item.index not in skipped]
        made = dict(zip((item.index for item in busy), distributed.distributed_map(busy, drawn)))
        for item in group:
            if item.index in skipped:
                result = {**skipped[item.index], "image": item.request.fields["image"]}
            else:
                result = outputs.save(item, made[item.index], made_by)
            before = result["path"]
            results.report(result)
        if job.script:
            distributed.barrier()  # the next step goes on from this file
    progress.close()
    for one in asked:
        if one.failed:
            results.report(one.line)
    if job.sheet:
        save_sheet(job.sheet, results.reported)
    return results.finish()


def diffusion(
    recipe: str, options: dict[str, Any] | None, wanted: str
) -> tuple[dict[str, Any], Any, dict[str, Any], Any]:
    """A system that draws by diffusion: its recipe, class, parts and options, all checked.

    wanted: what needs one. Raises RecipeError, CheckpointError.
    """
    system = load_system(recipe)
    kind, _ = systems.bind(system.get("system"), "system", ("device", *section(system, "parts")))
    if not getattr(kind, "shows", False):
        raise RecipeError(f"{recipe}: this system draws whole pictures; {wanted} needs diffusion, such as glide")
    part, parts, settings = prepare(system, {key: one for key, one in (options or {}).items() if one is not None})
    parts.pop("reranker", None)
    return system, part, parts, settings


def _draw(
    system: Any, items: list[PlannedImage], options: Any, job: Job, together: int, progress: Progress
) -> list[Image.Image]:
    """The pictures of items that share a request, their holes filled."""
    request = items[0].request
    picture, found = _open(request)
    crop = crop_around(picture, found, system.size)
    drawn = system.draw(
        [request.prompt or ""], [[item.noise_seed for item in items]], options, job.batch_size or together,
        watch=progress.advance, region=crop.at_size,
    )  # fmt: skip
    return [restore_alpha(request.fields["image"], crop.paste(one), found) for one in drawn[0]]


def _requests(job: Job) -> list[GenerationRequest]:
    """Every request with its picture, its prompt and where to draw."""
    box = _box(job.box) if job.box else None
    if job.image == "-":
        if job.words or job.script:
            raise Failure("lines on standard input say what to draw: leave out prompts and --script", USAGE)
        lines = read_requests(job.lines or ["-"], plain_field="image", file_fields=("image", "mask"))
    elif job.script:
        if job.words or job.count > 1:
            raise Failure("--script says what to draw, one picture after the other: leave out prompts and -n", USAGE)
        lines = read_requests((), job.script, file_fields=("mask",))
    elif job.words:
        lines = read_requests(job.words)
    else:
        raise Failure('what to draw there? Give a prompt ("a corgi"), or --script FILE', USAGE)
    shared: dict[str, Any] = {} if job.image == "-" else {"image": job.image}
    shared |= {"mask": job.mask} if job.mask else {}
    shared |= {"box": list(box)} if box else {}
    requests = []
    for line in lines:
        own = line.fields
        named = {key: value for key, value in shared.items() if key == "image" or not ({"mask", "box"} & own.keys())}
        requests.append(line if line.failed else replace(line, fields={**own, **named}))
    return requests


def _checked(requests: list[GenerationRequest], lines: bool) -> list[GenerationRequest]:
    """The requests, tried. Of lines, a bad one becomes a line with `error`; raises the first where all are."""
    found: list[GenerationRequest] = []
    worst: Exception | None = None
    for request in requests:
        try:
            if lines and request.prompt is None and not request.failed:
                raise PromptError(f"a line without 'prompt': {request.fields['image']}")
            if not request.failed:
                _open(request)
        except (images.BadImage, Failure, PromptError) as error:
            if not lines:
                raise
            worst = worst or error
            request = replace(request, fields={**request.fields, "error": str(error)})
        found.append(request)
    if worst and all(one.failed for one in found):
        raise worst
    return found


def _on(request: GenerationRequest, image: str) -> GenerationRequest:
    return replace(request, fields={**request.fields, "image": image})


def _open(request: GenerationRequest) -> tuple[Image.Image, np.ndarray]:
    """The picture of a request and its hole."""
    path = request.fields["image"]
    picture = images.open_image(path)
    box = request.fields.get("box")
    return picture, inpaint_mask(path, picture.size, request.fields.get("mask"), _box(box) if box is not None else None)


def _box(value: Any) -> Box:
    """x, y, width and height, as text with commas or as a list. Raises Failure."""
    numbers = value.split(",") if isinstance(value, str) else value
    try:
        left, top, width, height = (int(number) for number in numbers)
    except (TypeError, ValueError):
        raise Failure(f"box {value}: give four whole numbers, x,y,width,height in pixels", USAGE) from None
    return left, top, width, height
