"""`dalle sample`: candidates of each prompt, the best of them kept, written with all that draws them again."""

import inspect
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from .. import checkpoint, distributed, images, recipe
from ..console import Progress
from ..exits import DONE, USAGE, Failure
from ..hardware.memory_meter import describe_bytes
from ..registry import RecipeError, bind, convert, suggest
from ..systems import device, memory, systems
from ..systems.scorer import DIGITS, Scorer
from ..tasks.decoder import DIFFUSION_MODELS
from .denoising_strip import Strip
from .metadata import Origin, digest, recall
from .outputs import Collected, Outputs, Results
from .requests import GenerationRequest, plan_images, read_requests
from .sheets import check_sheet, save_sheet


@dataclass(frozen=True)
class Job:
    """What the command line asks for.

    options: those of the system's `sampling`, None where not given. watch: file for the first pictures' steps.
    """

    words: Sequence[str] = ()
    prompts: str | None = None
    recipe: str | None = None
    count: int | None = None
    rerank: int | None = None
    top: int | None = None
    seed: int | None = None
    out: str = "out"
    sheet: str | None = None
    like: str | None = None
    image: str | None = None
    keep_rows: int | None = None
    options: dict[str, Any] | None = None
    overwrite: bool = False
    skip_existing: bool = False
    batch_size: int | None = None
    precision: str = "auto"
    as_json: bool = False
    dry_run: bool = False
    quiet: bool = False
    watch: str | None = None
    offload: bool = False


def sample(job: Job, results: Collected | None = None) -> int:
    """Draw what is asked for; returns the exit code. results: where they are reported, default: standard output.

    Raises Failure, RecipeError, PromptError, CheckpointError.
    """
    began = time.monotonic()
    origin, asked = _requests(job)
    requests = [one for one in asked if not one.failed]
    job, earlier = _continued(job, dict(origin.options) if origin else {})
    name = job.recipe or (origin.recipe if origin else "dalle1")
    system_recipe = load_system(name)
    if origin and job.recipe:
        earlier = _understood(earlier, system_recipe, job)
    part, parts, options = prepare(system_recipe, {**earlier, **_given(job.options)})
    reranker = parts.pop("reranker", None)
    if job.rerank and not reranker:
        raise RecipeError(f"{name}: --rerank needs a CLIP, and the recipe names none in parts.reranker")
    if job.image and not hasattr(part, "begin_with"):
        raise RecipeError(f"{name}: --image and --keep-rows are for transformers; `dalle inpaint` fills parts")
    if job.watch and not getattr(part, "shows", False):
        raise RecipeError(f"{name}: --watch is for diffusion; this system has no steps to show")
    check_offload(part, job.offload)

    # ---- all that can go wrong without a model goes wrong here ----------------------------------------------------
    candidates = job.rerank or job.count or 1
    kept = min(job.top or 1, candidates) if job.rerank else candidates
    drawn = plan_images(requests, candidates, job.seed)
    files = [replace(drawn[r * candidates + k], index=r * kept + k) for r in range(len(requests)) for k in range(kept)]
    place = device.choose(job.precision, job.offload)
    if job.dry_run:
        each = f"{len(requests)} prompts x {candidates} candidates, {kept} of each kept"
        describe(name, system_recipe, options, f"{each}: {len(requests) * kept} files")
        if hasattr(part, "needs"):
            shapes = replace(place, empty=True)
            system = systems.build(system_recipe["system"], "system", device=shapes, **parts)
            scorer = Scorer(shapes, reranker) if job.rerank else None
            held = memory.estimate(system, scorer, options, len(requests), candidates, job.batch_size)
            print(f"memory: {describe_bytes(held)}", file=sys.stderr)
        return DONE
    if job.image:
        _check_picture(job.image)
    for option, page in (("--sheet", job.sheet), ("--watch", job.watch)):
        if page:
            check_sheet(page, job.overwrite or job.skip_existing, option)
    outputs = Outputs(job.out, files, job.overwrite, job.skip_existing)
    results = results or Results(job.as_json)
    waiting = {result["index"]: result for result in outputs.skipped}
    present, due = set(waiting), deque(item.index for item in files)
    wanted: dict[int, list[int]] = {}  # by prompt, the candidates to draw: all where they are ranked
    for r in range(len(requests)):
        missing = [k for k in range(kept) if r * kept + k not in present]
        if missing:
            wanted[r] = list(range(candidates)) if job.rerank else missing

    # ---- drawing, some pictures at a time; results in the order of the prompts --------------------------------------
    system = systems.build(system_recipe["system"], "system", device=place, **parts) if wanted else None
    scorer = Scorer(place, reranker) if wanted and job.rerank else None
    models = {**(system.files(options) if system else {}), **(scorer.files if scorer else {})}
    settings = {**asdict(options), **({"image": job.image, "keep_rows": job.keep_rows} if job.image else {})}
    made_by = Origin("sample", name, settings, {key: digest(path) for key, path in models.items()})
    first = system.begin_with(job.image, job.keep_rows) if system and job.image else None
    strip = Strip(job.watch) if job.watch else None
    more = {"see": strip} if strip else {}
    if job.batch_size:
        together, batch = max(1, job.batch_size // candidates), job.batch_size
    else:
        together, batch = memory.plan(system, options, len(wanted), candidates) if system else (1, 1)
        together, batch = map(min, zip(*distributed.all_gather_object((together, batch))))
    world = distributed.world_size()
    blocks = _blocks(wanted, together * world, candidates if job.rerank else batch * world)
    progress = Progress("sample", sum(len(one.own()[0]) * len(one.own()[1]) for one in blocks), quiet=job.quiet)
    if job.top and kept < job.top:
        progress.note(f"--top {job.top}: all {kept} candidates are kept")
    if origin and not job.recipe:
        for line in _other_weights(job.like, origin, made_by):
            progress.note(line)
    for block in blocks:
        rows, columns = block.own()
        best: dict[int, list[Candidate]] = {}
        if rows:
            assert system is not None
            prompts = [requests[r].prompt or "" for r in rows]
            seeds = [[drawn[r * candidates + k].noise_seed for k in columns] for r in rows]
            pictures = system.draw(prompts, seeds, options, batch, first, progress.advance, **more)
            for r, prompt, found in zip(rows, prompts, pictures):
                scored = _best(scorer, prompt, found, kept)
                best[r] = [Candidate(columns[i], score, images.to_pil(found[i])) for i, score in scored]
        everywhere = distributed.all_gather_object(best)
        for r in block.rows:
            ranked = sorted((one for part in everywhere for one in part.get(r, [])), key=Candidate.place)[:kept]
            for k, one in enumerate(ranked):
                file = files[r * kept + (k if job.rerank else one.which)]
                if file.index in present:
                    continue
                item = replace(file, sample_index=drawn[r * candidates + one.which].sample_index)
                details = {} if one.score is None else {"score": one.score}
                waiting[file.index] = outputs.save(item, one.picture, made_by, **details)
        while due and due[0] in waiting:
            results.report(waiting.pop(due.popleft()))
    for index in due:
        results.report(waiting.pop(index))
    progress.close()
    for one in asked:
        if one.failed:
            results.report(one.line)
    if wanted:
        count = sum(map(len, wanted.values()))
        progress.note(f"{count} drawn, {len(outputs.todo)} kept in {job.out}, {time.monotonic() - began:.1f} s")
    if strip:
        strip.save()
    if job.sheet:
        save_sheet(job.sheet, results.reported)
    return results.finish()


@dataclass(frozen=True)
class Block:
    """What is drawn together: the candidates `columns` of each of the prompts `rows`."""

    rows: list[int]
    columns: list[int]

    def own(self) -> tuple[list[int], list[int]]:
        """The rows and columns of this process: some of the candidates of all prompts or, of few, of some prompts."""
        rank, world = distributed.rank(), distributed.world_size()
        if len(self.columns) < world:
            return self.rows[rank::world], self.columns
        return self.rows, self.columns[rank::world]


def _blocks(wanted: Mapping[int, list[int]], together: int, batch: int) -> list[Block]:
    """Neighbouring prompts with the same candidates, at most `together`, and at most `batch` candidates of each."""
    found: list[Block] = []
    for row, columns in wanted.items():
        if found and found[-1].columns == columns and len(found[-1].rows) < together:
            found[-1].rows.append(row)
        else:
            found.append(Block([row], columns))
    return [
        Block(one.rows, one.columns[start : start + batch])
        for one in found
        for start in range(0, len(one.columns), batch)
    ]


@dataclass(frozen=True)
class Candidate:
    """A picture of a prompt's candidate number `which`, with its score where something scores."""

    which: int
    score: float | None
    picture: Image.Image

    def place(self) -> tuple[float, int]:
        """Sorts the best first, or all in order where nothing scores."""
        return -(self.score or 0.0), self.which


def prepare(system_recipe: dict, given: Mapping[str, Any]) -> tuple[Any, dict[str, Any], Any]:
    """A system's class, its parts and its options, those given before the recipe's, all checked and nothing loaded."""
    parts = dict(recipe.section(system_recipe, "parts"))
    part: Any
    part, _ = systems.bind(system_recipe.get("system"), "system", ("device", *parts))
    takes = {*inspect.signature(part).parameters, "reranker"} - {"device"}
    for key in parts:
        if key not in takes:
            raise RecipeError(f"parts.{key}: the system takes no '{key}'{suggest(key, takes)}")
    if "reranker" in parts:
        parts["reranker"] = convert(parts["reranker"], str | list[str] | None, "parts.reranker")
    kind = part.sampling
    options = kind(**bind(kind, {**recipe.section(system_recipe, "sample"), **given}, "sample"))
    part.check(options, parts)
    return part, parts, options


def check_offload(part: Any, offload: bool) -> None:
    """Raises Failure where --offload is asked of a system that has no stages to take turns."""
    if offload and not getattr(part, "offloads", False):
        raise Failure("--offload is for diffusion (GLIDE, unCLIP); this system is one model", USAGE)


def load_system(name: str) -> dict:
    """A system recipe by name or path, that in a folder, or the one that a checkpoint makes which draws by itself."""
    if file := recipe.of_folder(name):
        return recipe.beside(recipe.load(str(file), "systems"), file.parent)
    if Path(name).suffix not in (".yaml", ".yml") and name not in recipe.names("systems"):
        try:
            path = checkpoint.resolve(name)
        except checkpoint.CheckpointError:
            if "/" in name:
                raise
            return recipe.load(name, "systems")  # which says what there is
        found = checkpoint.metadata(path)["recipe"]
        kind = recipe.type_of(found, "model")
        if kind in DIFFUSION_MODELS:
            free = recipe.section(found, "task").get("text_drop_prob")  # without, no guidance is possible
            scale = {} if free else {"sample": {"guidance_scale": 1.0}}
            return {"system": {"type": "glide"}, "parts": {"decoder": str(path)}, **scale}
        if kind != "dalle":
            raise RecipeError(f"{path} holds a '{kind}', which draws nothing by itself; give a system recipe")
        parts = {**recipe.load("dalle1", "systems")["parts"], "transformer": str(path)}
        return {"system": {"type": "dalle1"}, "parts": parts}
    found = recipe.load(name, "systems")
    return recipe.beside(found, Path(name).parent) if os.path.isfile(name) else found


def _requests(job: Job) -> tuple[Origin | None, list[GenerationRequest]]:
    """The prompts, and what --like says beside them."""
    if job.image and job.keep_rows is None:
        raise Failure("--image needs --keep-rows: how many rows of codes of the picture to keep", USAGE)
    if job.keep_rows is not None and not job.image:
        raise Failure("--keep-rows needs --image: the picture to continue", USAGE)
    if job.top is not None and not job.rerank:
        raise Failure("--top needs --rerank: how many to draw, of which --top are kept", USAGE)
    if job.count is not None and job.rerank:
        raise Failure("-n does not go with --rerank: --rerank says how many are drawn, --top how many are kept", USAGE)
    requests = read_requests(job.words, job.prompts)
    if job.like:
        origin, request = recall(job.like)
        if origin.command != "sample":
            raise Failure(f"{job.like} was made by `dalle {origin.command}`, not by `dalle sample`", USAGE)
        return origin, [one if one.failed else replace(request, prompt=one.prompt) for one in requests] or [request]
    if not requests:
        raise Failure(
            'what to draw? Give a prompt ("an avocado chair"), --prompts FILE, or - for standard input', USAGE
        )
    return None, requests


def _understood(earlier: dict[str, Any], system_recipe: dict, job: Job) -> dict[str, Any]:
    """Of the options of --like, those that another system has as well; the rest is said."""
    kind, _ = systems.bind(system_recipe.get("system"), "system", ("device", *recipe.section(system_recipe, "parts")))
    takes = inspect.signature(kind.sampling).parameters
    foreign = [key for key in earlier if key not in takes]
    if foreign and not job.quiet:
        print(f"of {job.like}, {job.recipe} has no {', '.join(foreign)}: left out", file=sys.stderr)
    return {key: value for key, value in earlier.items() if key in takes}


def _other_weights(picture: str | None, before: Origin, now: Origin) -> Iterator[str]:
    """Lines about the models that drew a picture and have changed since."""
    changed = [key for key, value in now.models.items() if before.models.get(key, value) != value]
    if changed:
        yield f"{picture} was drawn by another {' and '.join(changed)} than is there now: this will be another picture"


def _given(options: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (options or {}).items() if value is not None}


def _continued(job: Job, earlier: dict[str, Any]) -> tuple[Job, dict[str, Any]]:
    """A job with the picture that the one of --like went on from, and the rest of that one's options."""
    image, rows = earlier.get("image"), earlier.get("keep_rows")
    if not isinstance(image, str) or type(rows) is not int:
        return job, earlier
    rest = {key: value for key, value in earlier.items() if key not in ("image", "keep_rows")}
    return (job if job.image else replace(job, image=image, keep_rows=rows)), rest


def _check_picture(path: str) -> None:
    try:
        images.decode(path)
    except images.BadImage as error:
        raise images.BadImage(f"--image {path}: {error}") from None


def _best(scorer: Scorer | None, prompt: str, pictures: Tensor, count: int) -> list[tuple[int, float | None]]:
    """The best `count` of the candidates with their scores, or all in order where nothing scores."""
    if scorer is None:
        return [(i, None) for i in range(len(pictures))]
    # rounded first: the same picture drawn twice scores the same, whatever it was drawn and scored beside
    scores = [round(score, DIGITS) for score in (scorer.pictures(pictures) @ scorer.texts([prompt])[0]).tolist()]
    return [(i, scores[i]) for i in sorted(range(len(scores)), key=lambda i: -scores[i])[:count]]


def describe(name: str, system_recipe: dict, options: Any, work: str) -> None:
    """What a dry run says of a system, and of what it is to do. Raises CheckpointError for parts that are not there."""
    print(f"system: {name}", file=sys.stderr)
    for key, source in recipe.sources(system_recipe):
        path = checkpoint.resolve(source)
        print(f"  {key}: {path} ({path.stat().st_size / 1e6:.1f} MB)", file=sys.stderr)
    print(f"  {', '.join(f'{key} {value}' for key, value in asdict(options).items())}", file=sys.stderr)
    print(work, file=sys.stderr)
