"""`dalle sample`: images of prompts, or the best of many candidates, written with everything to reproduce them.

Four steps: resolve (system and requests), plan (seeds and files), generate, write. Everything that can fail without a
model fails in the first two.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .. import distributed, images
from ..console import Progress, log
from ..exits import DONE, USAGE, Failure
from ..hardware.memory_meter import describe_bytes
from ..registry import RecipeError
from ..systems import memory
from ..systems.device import Device
from ..systems.loading import ResolvedSystem, resolve
from ..systems.scorer import Scorer
from . import candidates as ranking
from .denoising_strip import DenoisingStrip
from .metadata import Origin, digest, recall
from .options import GenerationOptions, print_dry_run
from .outputs import Collected, Outputs, Results
from .requests import GenerationRequest, PlannedImage, plan_images, read_requests
from .sheets import check_sheet, save_sheet

DEFAULT_RECIPE = "dalle1"


@dataclass(frozen=True)
class SampleOptions(GenerationOptions):
    """The options of `sample`.

    rerank: candidates per prompt, of which the best `top` (default 1) are kept. reranker: CLIP checkpoints in place of
    the system's. reproduce: an image whose settings are used again. image, keep_rows: complete an image from its upper
    rows of tokens. denoising_strip: file for the steps of the first images.
    """

    rerank: int | None = None
    top: int | None = None
    reranker: Sequence[str] | None = None
    reproduce: str | None = None
    image: str | None = None
    keep_rows: int | None = None
    denoising_strip: str | None = None

    @property
    def candidates(self) -> int:
        """Images generated per prompt."""
        return self.rerank or self.num_images or 1

    @property
    def kept(self) -> int:
        """Images written per prompt."""
        return (self.top or 1) if self.rerank else self.candidates


@dataclass(frozen=True)
class Inputs:
    """What to generate from: the resolved system, and requests that can be used or failed in an earlier command."""

    system: ResolvedSystem
    requests: list[GenerationRequest]
    failed: list[GenerationRequest]
    origin: Origin | None  # of the image to reproduce


@dataclass(frozen=True)
class Plan:
    """samples: all candidates, prompt by prompt. files: images to write. wanted: candidates to generate, by prompt."""

    samples: list[PlannedImage]
    files: list[PlannedImage]
    outputs: Outputs
    wanted: dict[int, list[int]]


@dataclass(frozen=True)
class Models:
    """The loaded models, none if every file exists, and what the images record of them."""

    system: Any
    scorer: Scorer | None
    origin: Origin


def sample(
    prompts: Sequence[str] = (),
    options: SampleOptions | None = None,
    prompts_file: str | None = None,
    results: Collected | None = None,
) -> int:
    """Generate images of prompts; returns the exit code. results: where to report, default standard output.

    Raises Failure, RecipeError, PromptError, CheckpointError.
    """
    began = time.monotonic()
    options = options or SampleOptions()
    _check(options)
    inputs, options = _resolve(prompts, prompts_file, options)
    if options.dry_run:
        return _dry_run(inputs, options)
    plan = _plan(inputs, options)
    results = results or Results(options.json)
    models = _load(inputs, plan, options)
    progress = Progress("sample", 0, quiet=options.quiet)
    for line in _remarks(inputs, models, options):
        progress.note(line)
    _write(inputs, plan, models, _generate(inputs, plan, models, options, progress), results)
    progress.close()
    if plan.wanted:
        generated, seconds = sum(map(len, plan.wanted.values())), time.monotonic() - began
        progress.note(f"{generated} generated, {len(plan.outputs.todo)} written to {options.out}, {seconds:.1f} s")
    if options.sheet:
        save_sheet(options.sheet, results.reported)
    return results.finish()


# ---- resolve -------------------------------------------------------------------------------------------------------


def _check(options: SampleOptions) -> None:
    """Raise Failure for options that contradict each other."""
    if options.image and options.keep_rows is None:
        raise Failure("--image needs --keep-rows: how many rows of image tokens to keep", USAGE)
    if options.keep_rows is not None and not options.image:
        raise Failure("--keep-rows needs --image: the image to complete", USAGE)
    if options.top is not None and not options.rerank:
        raise Failure("--top needs --rerank N: of N candidates, --top are kept", USAGE)
    if options.reranker and not options.rerank:
        raise Failure("--reranker needs --rerank N: the number of candidates to rank", USAGE)
    if options.rerank and options.kept > options.rerank:
        raise Failure(f"--top {options.top} exceeds the {options.rerank} candidates of --rerank", USAGE)
    if options.num_images is not None and options.rerank:
        raise Failure("-n and --rerank exclude each other: --rerank N generates N and keeps --top of them", USAGE)


def _resolve(prompts: Sequence[str], prompts_file: str | None, options: SampleOptions) -> tuple[Inputs, SampleOptions]:
    """Return the system and the requests, and the options, completed with those of an image to reproduce."""
    requests = read_requests(prompts, prompts_file)
    origin, earlier = None, {}
    if options.reproduce:
        origin, request = recall(options.reproduce)
        if origin.command != "sample":
            raise Failure(
                f"{options.reproduce} was made by `dalle {origin.command}`; --reproduce takes images of `dalle sample`",
                USAGE,
            )
        requests = [one if one.failed else replace(request, prompt=one.prompt) for one in requests] or [request]
        options, earlier = _with_prefix_of(origin, options)
    elif not requests:
        raise Failure('no prompt: give one ("an avocado chair"), --prompts FILE, or - for standard input', USAGE)
    name = options.recipe or (origin.recipe if origin else DEFAULT_RECIPE)
    system = resolve(name, options.sampling, options.reranker, earlier)
    if options.rerank:
        system.require_reranker()
    if options.image and not system.cls.supports_image_prefix:
        raise RecipeError(f"{name}: --image and --keep-rows are for DALL-E 1; `dalle inpaint` fills parts of images")
    if options.denoising_strip and not system.cls.shows_denoising:
        raise RecipeError(f"{name}: --denoising-strip is for diffusion; this system has no denoising steps")
    usable = [request for request in requests if not request.failed]
    return Inputs(system, usable, [request for request in requests if request.failed], origin), options


def _with_prefix_of(origin: Origin, options: SampleOptions) -> tuple[SampleOptions, dict[str, Any]]:
    """Return the options with the image that the origin completed, and the origin's sampling options."""
    sampling = dict(origin.options)
    image, rows = sampling.pop("image", None), sampling.pop("keep_rows", None)
    if isinstance(image, str) and type(rows) is int and not options.image:
        options = replace(options, image=image, keep_rows=rows)
    return options, sampling


# ---- plan ----------------------------------------------------------------------------------------------------------


def _plan(inputs: Inputs, options: SampleOptions) -> Plan:
    """Return what to generate and which files to write, checked. Raises Failure."""
    candidates, kept = options.candidates, options.kept
    samples = plan_images(inputs.requests, candidates, options.seed)
    files = [
        replace(samples[row * candidates + k], index=row * kept + k)
        for row in range(len(inputs.requests))
        for k in range(kept)
    ]
    if options.image:
        _check_image(options.image)
    for option, path in (("--sheet", options.sheet), ("--denoising-strip", options.denoising_strip)):
        if path:
            check_sheet(path, options.may_replace, option)
    outputs = Outputs(options.out, files, options.overwrite, options.skip_existing)
    existing = {result["index"] for result in outputs.skipped}
    wanted: dict[int, list[int]] = {}
    for row in range(len(inputs.requests)):
        missing = [k for k in range(kept) if row * kept + k not in existing]
        if missing:
            wanted[row] = list(range(candidates)) if options.rerank else missing
    return Plan(samples, files, outputs, wanted)


def _check_image(path: str) -> None:
    try:
        images.decode(path)
    except images.BadImage as error:
        raise images.BadImage(f"--image {path}: {error}") from None


def _dry_run(inputs: Inputs, options: SampleOptions) -> int:
    """Print the system, the work and the memory that it takes."""
    prompts, system = len(inputs.requests), inputs.system
    work = f"{prompts} prompts x {options.candidates} candidates, {options.kept} of each kept"
    plan_images(inputs.requests, options.candidates, options.seed)  # which has limits
    print_dry_run(system, f"{work}: {prompts * options.kept} files in {options.out}")
    if system.cls.estimates_memory:
        place = replace(system.choose_device(options.precision, options.offload), shapes_only=True)
        scorer = system.load_reranker(place) if options.rerank else None
        held = memory.estimate(
            system.load(place), scorer, system.options, prompts, options.candidates, options.batch_size
        )
        log(f"memory: {describe_bytes(held)}")
    return DONE


# ---- generate ------------------------------------------------------------------------------------------------------


def _load(inputs: Inputs, plan: Plan, options: SampleOptions) -> Models:
    """Load the models, if anything is to be generated."""
    resolved = inputs.system
    place: Device = resolved.choose_device(options.precision, options.offload)
    system = resolved.load(place) if plan.wanted else None
    scorer = resolved.load_reranker(place) if plan.wanted and options.rerank else None
    files = {**(system.checkpoints(resolved.options) if system else {}), **(scorer.files if scorer else {})}
    prefix = {"image": options.image, "keep_rows": options.keep_rows} if options.image else {}
    digests = {part: digest(path) for part, path in files.items()}
    return Models(system, scorer, Origin("sample", resolved.name, {**asdict(resolved.options), **prefix}, digests))


def _generate(
    inputs: Inputs, plan: Plan, models: Models, options: SampleOptions, progress: Progress
) -> Iterator[tuple[int, int, ranking.Candidate]]:
    """Yield the images to write: number of the request, rank among its images, candidate."""
    if not plan.wanted:
        return
    system, sampling, candidates = models.system, inputs.system.options, options.candidates
    prefix = system.encode_image_prefix(options.image, options.keep_rows) if options.image else None
    strip = DenoisingStrip(options.denoising_strip) if options.denoising_strip else None
    max_prompts, batch_size = _batch(system, sampling, len(plan.wanted), options)
    world_size = distributed.world_size()
    max_candidates = candidates if options.rerank else batch_size * world_size
    blocks = ranking.blocks(plan.wanted, max_prompts * world_size, max_candidates)
    shares = [block.of_this_rank() for block in blocks]
    progress.total = sum(len(rows) * len(columns) for rows, columns in shares)
    progress.begin(0)
    for block, (rows, columns) in zip(blocks, shares):
        selected: dict[int, ranking.Candidates] = {}
        if rows:
            prompts = [inputs.requests[row].prompt or "" for row in rows]
            seeds = [[plan.samples[row * candidates + k].noise_seed for k in columns] for row in rows]
            generated = system.generate(
                prompts, seeds, sampling, batch_size, progress.advance, image_prefix=prefix, on_step=strip
            )
            for row, prompt, images_of_prompt in zip(rows, prompts, generated):
                selected[row] = ranking.select(models.scorer, prompt, images_of_prompt, columns, options.kept)
        everywhere = distributed.all_gather_object(selected)
        for row in block.rows:
            merged = ranking.merge([part[row] for part in everywhere if row in part], options.kept)
            if options.rerank and len(merged.digests) < candidates:
                progress.note(_duplicates(inputs.requests[row], len(merged.digests), options))
            for k, candidate in enumerate(merged.best):
                yield row, k if options.rerank else candidate.number, candidate
    if strip:
        strip.save()


def _batch(system: Any, sampling: Any, prompts: int, options: SampleOptions) -> tuple[int, int]:
    """Return how many prompts, and candidates of each, a process generates at once: the same in all processes."""
    if options.batch_size:
        return max(1, options.batch_size // options.candidates), options.batch_size
    planned = memory.plan_batch(system, sampling, prompts, options.candidates)
    max_prompts, batch_size = map(min, zip(*distributed.all_gather_object(planned)))
    return max_prompts, batch_size


def _duplicates(request: GenerationRequest, distinct: int, options: SampleOptions) -> str:
    extra = options.kept - distinct
    consequence = f"; {extra} of the {options.kept} kept are duplicates" if extra > 0 else "; duplicates were dropped"
    return f'"{request.prompt}": {distinct} distinct of {options.rerank} candidates{consequence}'


def _remarks(inputs: Inputs, models: Models, options: SampleOptions) -> Iterator[str]:
    """Yield what the user should know of the system: the reranker, and differences from the image to reproduce."""
    system = inputs.system
    if models.scorer:
        how = "" if options.reranker else "; --reranker NAME chooses another CLIP"
        yield f"candidates are ranked by {', '.join(system.reranker)} ({system.reranker_source}){how}"
    if inputs.origin and system.unknown_options:
        yield f"{system.name} has no {', '.join(system.unknown_options)}: not used from {options.reproduce}"
    if inputs.origin and not options.recipe:
        before, now = inputs.origin.models, models.origin.models
        changed = [part for part, value in now.items() if before.get(part, value) != value]
        if changed:
            yield f"{options.reproduce}: made with another {' and '.join(changed)}; the new image will differ"


# ---- write ---------------------------------------------------------------------------------------------------------


def _write(
    inputs: Inputs,
    plan: Plan,
    models: Models,
    generated: Iterator[tuple[int, int, ranking.Candidate]],
    results: Collected,
) -> None:
    """Save images as they come, and report all results in the order of the requests, failed ones last."""
    kept = len(plan.files) // max(len(inputs.requests), 1)
    candidates = len(plan.samples) // max(len(inputs.requests), 1)
    waiting = {result["index"]: result for result in plan.outputs.skipped}
    existing, due = set(waiting), deque(file.index for file in plan.files)
    for row, k, candidate in generated:
        file = plan.files[row * kept + k]
        if file.index in existing:
            continue
        item = replace(file, sample_index=plan.samples[row * candidates + candidate.number].sample_index)
        details = {} if candidate.score is None else {"score": candidate.score}
        waiting[file.index] = plan.outputs.save(item, candidate.image, models.origin, **details)
        while due and due[0] in waiting:
            results.report(waiting.pop(due.popleft()))
    for index in due:
        results.report(waiting.pop(index))
    for request in inputs.failed:
        results.report(request.line)
