"""`dalle evaluate upscale|inpaint|inversion`: what is done with given pictures, measured on unseen scenes.

Each draws unseen scenes, works on them by the command of that name, and measures or judges what comes of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import typer

from ..exits import DONE, USAGE, Failure
from .app import command
from .evaluate import Count, evaluate, watched
from .latents import drawing
from .options import (
    MODEL,
    SAMPLING,
    BatchSize,
    DiffusionRecipe,
    Json,
    Objects,
    Offload,
    Overwrite,
    Precision,
    Quiet,
    Sampler,
    Seed,
    Sheet,
    SkipExisting,
    Steps,
)

Folder = Annotated[str, typer.Option(help="Folder for the scenes, and for what is drawn of them.")]


@command(None, "dalle evaluate upscale --recipe unclip -n 50 --sheet large.png", to=evaluate)
def upscale(
    model: Annotated[str | None, typer.Option(help="An upsampler's checkpoint.", rich_help_panel=MODEL)] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Or the system that it is part of. Default: glide.", rich_help_panel=MODEL),
    ] = None,
    count: Count = 50,
    glyphs: Objects = "everyday",
    steps: Steps = None,
    sampler: Sampler = None,
    seed: Seed = None,
    out: Folder = "out/upscale",
    sheet: Sheet = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    quiet: Quiet = False,
    precision: Precision = "auto",
    offload: Offload = False,
) -> None:
    """Enlarge unseen scenes, clean and degraded: PSNR to the true large ones, against bicubic."""
    from .. import images
    from ..evaluate import upscale as measuring
    from ..generate.latent_editor import Job
    from ..generate.outputs import Collected
    from ..generate.upscale import sizes, upsampler
    from ..generate.upscale import upscale as enlarge

    if model and recipe:
        raise Failure("give --model or --recipe, not both", USAGE)
    name, options = model or recipe or "glide", {"steps": steps, "sampler": sampler}
    source, _ = upsampler(name, options)
    size, factor = sizes(source)
    check_page(sheet, overwrite, skip_existing)
    reports, rows = [], []
    for kind in measuring.KINDS:
        pairs = list(measuring.pairs(count, size, factor, glyphs, kind))
        job = Job(name, out=f"{out}/{kind}", overwrite=overwrite, skip_existing=skip_existing)
        given, drawn = scenes_given(job, [(pair.caption, pair.small) for pair in pairs]), Collected()
        code = enlarge(
            given, None, name, options, seed, f"{job.out}/drawn", None, overwrite, skip_existing, False, quiet,
            precision, offload, drawn,
        )  # fmt: skip
        pictures = list(opened(complete(drawn, code)))
        reports.append(measuring.score(kind, pairs, pictures))
        rows += [
            [
                (pair.small.resize(pair.large.size, images.Image.Resampling.NEAREST), kind),
                (measuring.bicubic(pair), "bicubic"), (picture, "drawn"), (pair.large, "true"),
            ]
            for pair, picture in zip(pairs, pictures)
        ]  # fmt: skip
    save_page(sheet, rows)
    publish([{"title": "evaluate upscale", **one.plain} for one in reports], measuring.table(reports), as_json)


@drawing(evaluate, "dalle evaluate inpaint --recipe unclip -n 100", recipe="glide-inpaint", out="out/inpaint")
def inpaint(count: Count = 100, glyphs: Objects = "everyday", *, job: Any) -> int:
    """Put another object in the place of one of two: whether it is there, and the rest as it was."""
    from ..data.scenes.glyphs import glyph_set
    from ..evaluate import inpaint as judging
    from ..evaluate.checker import Judge
    from ..generate import inpaint as filling
    from ..generate.outputs import Collected

    system, _, parts, options = filling.diffusion(job.recipe, job.options, "inpainting")
    if job.dry_run:
        return describe_run(job, system, options, count)
    known = glyph_set(glyphs)
    last = next(filter(None, (parts.get(name) for name in ("upsampler_2", "upsampler", "decoder"))))
    holes = list(judging.holes(count, trained_side(last), glyphs, trained_scatter(parts["decoder"])))
    check_page(job.sheet, job.overwrite, job.skip_existing)
    given, drawn = scenes_given(job, [(hole.caption, hole.picture) for hole in holes]), Collected()
    lines = [request_line(image=path, prompt=hole.caption, box=hole.box) for path, hole in zip(given, holes)]
    own = filling.Job(
        "-", recipe=job.recipe, seed=job.seed, out=f"{job.out}/drawn", options=job.options, overwrite=job.overwrite,
        skip_existing=job.skip_existing, batch_size=job.batch_size, precision=job.precision, quiet=job.quiet,
        offload=job.offload, lines=lines,
    )  # fmt: skip
    paths = complete(drawn, filling.inpaint(own, drawn))
    court = Judge(known)
    pictures = watched(opened(paths), "judging", job.quiet, count)
    found = [judging.outcome(court, hole, picture) for hole, picture in zip(holes, pictures)]
    shares = judging.shares(found)
    text = [
        f"{count} unseen scenes of two things, one of them to become another",
        f"the asked object is in the hole: {shares['inside']}; in the asked colour as well: {shares['asked']}",
        f"outside the hole unchanged to the bit: {shares['untouched'].true} of {count}",
    ]
    publish([{"title": "evaluate inpaint", "recipe": job.recipe, **plainly(shares)}], text, job.as_json)
    rows = [
        [(path, "given"), (_blanked(path, hole.box), "hole"), (one["path"], said(outcome.inside, hole.caption))]
        for path, hole, one, outcome in zip(given, holes, drawn.reported, found)
    ]
    return save_page(job.sheet, rows)


@command(None, "dalle evaluate inversion --recipe unclip -n 50 --steps 50", to=evaluate)
def inversion(
    recipe: DiffusionRecipe = "glide",
    count: Count = 50,
    glyphs: Objects = "everyday",
    steps: Annotated[str, typer.Option(help="How many (50), or which (ddim50).", rich_help_panel=SAMPLING)] = "50",
    refine: Annotated[
        int,
        typer.Option(min=0, max=100, help="Times that a step is solved anew; `vary`: 3.", rich_help_panel=SAMPLING),
    ] = 3,
    sheet: Sheet = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    batch_size: BatchSize = None,
    precision: Precision = "auto",
    offload: Offload = False,
) -> None:
    """Turn unseen scenes into noise by DDIM inversion, and back: PSNR, and how many are over 25 dB."""
    from .. import images
    from ..console import Progress
    from ..evaluate import latents, unseen_scenes
    from ..generate.ddim_inversion import DDIMInversion

    check_page(sheet, overwrite)
    mirror = DDIMInversion(recipe, steps, precision, offload)
    found = list(unseen_scenes.scenes(count, mirror.size, glyphs, distinct=True, scatter=trained_scatter(mirror.name)))
    pictures, texts = unseen_scenes.batch([picture for _, _, picture in found]), [text for _, text, _ in found]
    progress = Progress("inversion", count, quiet=quiet)
    back = mirror.reconstruct(pictures, texts, batch_size, refine, progress.advance)
    progress.close()
    ratios = [images.psnr(one, other) for one, other in zip(pictures, back)]
    report = latents.returned(ratios)
    text = [f"{count} unseen scenes at {mirror.size} px, {steps} steps to the noise and as many back", str(report)]
    own = {"title": "evaluate inversion", "recipe": recipe, "pictures": count, "steps": steps, "refine": refine}
    publish([own | report.plain], text, as_json)
    rows = zip(pictures, back, ratios)
    save_page(sheet, [[(images.to_pil(a), "given"), (images.to_pil(b), f"{ratio:.1f} dB")] for a, b, ratio in rows])


# ---- what the commands share, those of measure_latents.py among them ---------------------------------------------


def scenes_given(job: Any, scenes: Iterable[tuple[str, Any]]) -> list[str]:
    """Write captioned pictures, arrays or PIL, as the files that a command is then given; returns their paths."""
    import numpy as np
    from PIL import Image

    from .. import distributed
    from ..generate.metadata import Origin
    from ..generate.outputs import Outputs
    from ..generate.requests import GenerationRequest, plan_images

    captions, pictures = zip(*scenes)
    items = plan_images([GenerationRequest(text) for text in captions])
    outputs = Outputs(f"{job.out}/given", items, job.overwrite, job.skip_existing)
    for item in outputs.todo:
        outputs.save(item, Image.fromarray(np.asarray(pictures[item.index])), Origin("evaluate", job.recipe, {}, {}))
    distributed.barrier()
    return [str(outputs.path(item)) for item in items]


def request_line(**fields: Any) -> str:
    """A request as a line of JSON."""
    import json

    return json.dumps(fields)


def complete(drawn: Any, code: int) -> list[str]:
    """The paths of what a command drew. Raises Failure where it failed in part: figures of the rest would mislead."""
    failed = next((one["error"] for one in drawn.reported if "error" in one), None)
    if code != DONE or failed:
        raise Failure(f"not all could be drawn: {failed}")
    return [one["path"] for one in drawn.reported]


def opened(paths: Iterable[str]) -> Iterator[Any]:
    """Picture files, one after the other."""
    from ..evaluate import grouped

    return map(grouped.opened, paths)


def trained_side(name: str) -> int:
    """The side of the pictures that a decoder of a system was trained on, which its CLIP has seen as well."""
    from .. import checkpoint, recipe

    path = checkpoint.resolve(str(name))
    size = recipe.section(checkpoint.metadata(path)["recipe"], "task").get("size")
    return checkpoint.pixels(path, size if isinstance(size, int) else 64)


def trained_scatter(name: str) -> bool:
    """Whether things stood in varied places in the scenes that a decoder was trained on."""
    from .. import checkpoint, recipe

    data = recipe.section(checkpoint.metadata(checkpoint.resolve(str(name)))["recipe"], "data")
    return bool(data.get("scatter", True))


def describe_run(job: Any, system: dict[str, Any], options: Any, count: int) -> int:
    """What a dry run says; returns the exit code."""
    from ..generate.sample import describe

    describe(job.recipe, system, options, f"{count} unseen scenes")
    return DONE


def check_page(path: str | None, *replace: bool) -> None:
    """Whether a sheet can be written, asked before anything is drawn. Raises Failure."""
    from ..generate.sheets import check_sheet

    if path:
        check_sheet(path, any(replace))


def save_page(path: str | None, rows: Sequence[Any]) -> int:
    """Write a sheet of rows where one was asked for; returns the exit code."""
    from ..generate.sheets import save_rows

    if path:
        save_rows(path, rows)
    return DONE


def said(true: bool, what: str = "") -> str:
    """A verdict, as a sheet says it."""
    return ("yes" if true else "no") + (f": {what}" if what else "")


def plainly(shares: dict[str, Any]) -> dict[str, Any]:
    """Shares as JSON, with their intervals."""
    found = {name: share.true / max(share.count, 1) for name, share in shares.items()}
    return found | {f"{name}_interval": share.interval for name, share in shares.items()}


def publish(lines: Sequence[dict[str, Any]], text: Sequence[str], as_json: bool) -> None:
    """Figures as a line each for programs, or as one text for people."""
    from .. import console

    if console.wants_json(as_json):
        for line in lines:
            console.print_result(line, [], True)
    else:
        console.print_text("\n".join(text))


def _blanked(path: str, box: tuple[int, int, int, int]) -> Any:
    """A picture with its hole in grey."""
    from .. import images

    picture = images.open_image(path)
    left, top, width, height = box
    picture.paste((128, 128, 128), (left, top, left + width, top + height))
    return picture
