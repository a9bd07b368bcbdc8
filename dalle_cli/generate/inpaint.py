"""`dalle inpaint`: regions of images generated anew from prompts (Nichol et al. 2022, section 3.2)."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from .. import console, distributed, images
from ..console import Progress
from ..exits import DONE, USAGE, Failure
from ..registry import RecipeError
from ..systems.loading import ResolvedSystem, system_class
from ..systems.system import OnImages
from .inpaint_crop import Box, clipping_note, crop_around, inpaint_mask, restore_alpha
from .metadata import Origin, digest
from .options import GenerationOptions, print_dry_run
from .outputs import Collected, Outputs, Results
from .requests import GenerationRequest, PlannedImage, PromptError, plan_images, read_requests
from .sheets import check_sheet, save_sheet

DEFAULT_RECIPE = "glide-inpaint"


@dataclass(frozen=True)
class InpaintOptions(GenerationOptions):
    """The options of `inpaint`. image: a file, or - for request lines from standard input or from `lines`.

    mask, box: the region to fill. script: a file of request lines, each applied to the result of the line before.
    """

    image: str = "-"
    prompts: Sequence[str] = ()
    mask: str | None = None
    box: str | None = None
    script: str | None = None
    lines: Sequence[str] = ()


def inpaint(options: InpaintOptions, results: Collected | None = None) -> int:
    """Generate the masked regions of images; returns the exit code.

    Everything outside the mask, and the size of the image, stays as it is. Raises Failure, RecipeError, PromptError,
    BadImage, CheckpointError.
    """
    resolved = resolve_diffusion(options, DEFAULT_RECIPE, "inpainting")
    sampling = resolved.options
    all_requests = _check(_requests(options), from_lines=options.image == "-")
    requests = [request for request in all_requests if not request.failed]
    items = plan_images(requests, options.num_images or 1, options.seed)
    if options.dry_run:
        print_dry_run(resolved, f"{len(items)} files in {options.out}")
        return DONE
    if options.sheet:
        check_sheet(options.sheet, options.may_replace)
    outputs = Outputs(options.out, items, options.overwrite, options.skip_existing)
    target = resolved.choose_device(options.precision, options.offload)
    _note_clipped_boxes(requests, options.quiet)
    results = results or Results(options.json)
    system = resolved.load(target) if outputs.todo else None
    files = system.checkpoints(sampling) if system else {}
    origin = Origin("inpaint", resolved.name, asdict(sampling), {name: digest(path) for name, path in files.items()})
    fill = partial(_inpaint_group, system, sampling, options.batch_size or resolved.cls.default_batch_size)
    _generate(options, items, outputs, results, origin, fill)
    for request in all_requests:
        if request.failed:
            results.report(request.line)
    if options.sheet:
        save_sheet(options.sheet, results.reported)
    return results.finish()


def _generate(
    options: InpaintOptions,
    items: Sequence[PlannedImage],
    outputs: Outputs,
    results: Collected,
    origin: Origin,
    fill: Callable[[list[PlannedImage], OnImages], list[Image.Image]],
) -> None:
    """Generate, save and report the planned images in order; those of a script one after the other."""
    skipped, num_images = {result["index"]: result for result in outputs.skipped}, options.num_images or 1
    if options.script:  # what follows a missing image has to be generated again
        first = min((item.index for item in outputs.todo), default=len(items))
        skipped = {index: result for index, result in skipped.items() if index < first}
    progress = Progress("inpaint", -(-(len(items) - len(skipped)) // distributed.world_size()), quiet=options.quiet)

    def inpaint_items(batch: list[PlannedImage]) -> Iterator[Image.Image]:
        for _, group in itertools.groupby(batch, lambda item: item.index // num_images):
            yield from fill(list(group), progress.advance)

    previous: str | None = None  # the image that a script continues from
    step = num_images * (1 if options.script else distributed.world_size())
    for start in range(0, len(items), step):
        batch = list(items[start : start + step])
        if options.script and previous:
            batch = [replace(item, request=_with_image(item.request, previous)) for item in batch]
        todo = [item for item in batch if item.index not in skipped]
        inpainted = dict(zip((item.index for item in todo), distributed.distributed_map(todo, inpaint_items)))
        for item in batch:
            if item.index in skipped:
                result = {**skipped[item.index], "image": item.request.fields["image"]}
            else:
                result = outputs.save(item, inpainted[item.index], origin)
            previous = result["path"]
            results.report(result)
        if options.script:
            distributed.barrier()  # the next line continues from this file
    progress.close()


def _inpaint_group(
    system: Any, sampling: Any, batch_size: int, items: list[PlannedImage], on_images: OnImages
) -> list[Image.Image]:
    """Return the inpainted images of items that share a request."""
    request = items[0].request
    image, mask = _open(request)
    crop = crop_around(image, mask, system.size)
    generated = system.generate(
        [request.prompt or ""], [[item.noise_seed for item in items]], sampling, batch_size, on_images,
        known_region=crop.at_size,
    )  # fmt: skip
    return [restore_alpha(request.fields["image"], crop.paste(pixels), mask) for pixels in generated[0]]


def resolve_diffusion(options: GenerationOptions, default_recipe: str, purpose: str) -> ResolvedSystem:
    """Return a system that generates by diffusion. purpose: what needs one, for the error.

    Raises RecipeError, CheckpointError.
    """
    name = options.recipe or default_recipe
    if not system_class(name).supports_inpainting:
        raise RecipeError(f"{name}: this system generates whole images; {purpose} needs diffusion, such as glide")
    return options.resolve(default_recipe)


def _requests(options: InpaintOptions) -> list[GenerationRequest]:
    """Return all requests with their image, prompt, and mask or box."""
    box = _parse_box(options.box) if options.box else None
    if options.image == "-":
        if options.prompts or options.script:
            raise Failure("lines on standard input hold the prompts: leave out prompts and --script", USAGE)
        requests = read_requests(options.lines or ["-"], plain_field="image", file_fields=("image", "mask"))
    elif options.script:
        if options.prompts or (options.num_images or 1) > 1:
            raise Failure("--script holds the prompts, for one image after the other: leave out prompts and -n", USAGE)
        requests = read_requests((), options.script, file_fields=("mask",))
    elif options.prompts:
        requests = read_requests(options.prompts)
    else:
        raise Failure('inpaint with what? Give a prompt ("a corgi"), or --script FILE', USAGE)
    defaults: dict[str, Any] = {} if options.image == "-" else {"image": options.image}
    regions = ({"mask": options.mask} if options.mask else {}) | ({"box": list(box)} if box else {})
    complete = []
    for request in requests:
        has_region = {"mask", "box"} & request.fields.keys()
        fields = {**request.fields, **defaults, **({} if has_region else regions)}
        complete.append(request if request.failed else replace(request, fields=fields))
    return complete


def _check(requests: list[GenerationRequest], from_lines: bool) -> list[GenerationRequest]:
    """Return the requests after opening their images and masks.

    A bad line becomes a request that failed, unless all lines are bad; a bad command line raises at once.
    """
    checked: list[GenerationRequest] = []
    first_error: Exception | None = None
    for request in requests:
        try:
            if from_lines and request.prompt is None and not request.failed:
                raise PromptError(f"a line without 'prompt': {request.fields['image']}")
            if not request.failed:
                _open(request)
        except (images.BadImage, Failure, PromptError) as error:
            if not from_lines:
                raise
            first_error = first_error or error
            request = replace(request, fields={**request.fields, "error": str(error)})
        checked.append(request)
    if first_error and all(request.failed for request in checked):
        raise first_error
    return checked


def _note_clipped_boxes(requests: Sequence[GenerationRequest], quiet: bool) -> None:
    """Say which boxes reach beyond their images."""
    if quiet or distributed.rank():
        return
    for request in requests:
        box, path = request.fields.get("box"), request.fields["image"]
        if box is not None and (note := clipping_note(path, images.image_size(path), _parse_box(box))):
            console.log(note)


def _with_image(request: GenerationRequest, path: str) -> GenerationRequest:
    return replace(request, fields={**request.fields, "image": path})


def _open(request: GenerationRequest) -> tuple[Image.Image, np.ndarray]:
    """Return the image of a request and its mask."""
    path = request.fields["image"]
    image = images.open_image(path)
    box = request.fields.get("box")
    mask = inpaint_mask(path, image.size, request.fields.get("mask"), _parse_box(box) if box is not None else None)
    return image, mask


def _parse_box(value: Any) -> Box:
    """Return left, top, width and height of text with commas or of a list. Raises Failure."""
    numbers = value.split(",") if isinstance(value, str) else value
    try:
        left, top, width, height = (int(number) for number in numbers)
    except (TypeError, ValueError):
        raise Failure(f"box {value}: give four integers, x,y,width,height in pixels", USAGE) from None
    return left, top, width, height
