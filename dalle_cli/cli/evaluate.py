"""`dalle evaluate ...`: figures that anyone can get again."""

import glob
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..exits import BAD_INPUT, USAGE, WOULD_OVERWRITE, Failure
from .app import JUDGE, command, subgroup
from .options import BatchSize, Json, Objects, Overwrite, Precision, Quiet

evaluate = subgroup("evaluate", JUDGE, "Measure a dVAE, a CLIP, priors, a whole system, or the scene checker itself.")

Count = Annotated[int, typer.Option("-n", "--count", min=1, max=1_000_000, help="How many.")]


@command(None, to=evaluate)
def dvae(
    model: Annotated[str, typer.Option(help="A dVAE's checkpoint.")] = "starter/dvae",
    count: Count = 1000,
    glyphs: Objects = "everyday",
    as_json: Json = False,
) -> None:
    """Reconstruct unseen scenes: PSNR, and the share of codes in use."""
    from .. import console
    from ..evaluate import codec

    found = codec.evaluate(model, count, glyphs)
    text = [
        f"{found.pictures} unseen scenes at {found.size} px",
        f"PSNR {found.psnr:.2f} dB, averaged over pictures ({found.of_all:.2f} dB of the mean error)",
        f"{found.used:.1%} of the codes in use",
    ]
    console.print_result({"model": model, **asdict(found)}, text, as_json)


@command(None, to=evaluate)
def retrieval(
    model: Annotated[str, typer.Option(help="A CLIP checkpoint.")] = "starter/clip",
    count: Count = 1000,
    among: Annotated[int, typer.Option(min=2, help="Captions to choose from.")] = 100,
    glyphs: Objects = "everyday",
    as_json: Json = False,
) -> None:
    """Find the caption of unseen scenes among others, and the scene of captions."""
    from .. import console
    from ..evaluate import retrieval

    found = retrieval.evaluate(model, count, glyphs, among)
    text = [
        f"{found.pictures} unseen scenes with distinct captions, in groups of {found.among}",
        f"the right caption comes first: {found.caption_first:.1%}",
        f"the right picture comes first: {found.picture_first:.1%}",
    ]
    console.print_result({"model": model, **asdict(found)}, text, as_json)


@command(None, "dalle evaluate prior prior-unclip-diffusion-tiny prior-unclip-ar-tiny --objects shapes", to=evaluate)
def prior(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Checkpoints of priors over one CLIP.")],
    count: Count = 500,
    among: Annotated[int, typer.Option(min=2, help="Pictures of which the true one should be nearest.")] = 100,
    glyphs: Objects = "everyday",
    clip: Annotated[str | None, typer.Option(help="The CLIP, where a checkpoint names none.")] = None,
    scale: Annotated[float, typer.Option(help="Guidance; 1 is none.")] = 1.0,
    steps: Annotated[str | None, typer.Option(help="Diffusion: see `dalle sample`.")] = None,
    best_of: Annotated[int | None, typer.Option(min=1, help="Candidates. Default: diffusion 2, AR 1.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="AR: of the buckets.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the first caption.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare what priors draw for unseen captions with the pictures' embeddings, and the text's own."""
    from .. import console
    from ..evaluate import prior

    watch = console.StageProgress(quiet)
    options = {"scale": scale, "steps": steps, "best_of": best_of, "temperature": temperature}
    try:
        found = prior.evaluate(models, count, glyphs, clip, options, among, seed, watch)
    finally:
        watch.close()
    rows: list[tuple[str, ...]] = [("", "cosine", "centred", f"first of {among}", "with the text", "parameters")]
    for row in found.rows:
        figures = f"{row.cosine:.3f}", f"{row.centred:.3f}", f"{row.first:.1%}", f"{row.text:.3f}"
        rows.append((row.name, *figures, f"{row.parameters / 1e6:.2f}M" if row.parameters else ""))
    text = [f"{found.captions} unseen captions; cosine with the true picture embedding", *console.align(rows)]
    console.print_result(asdict(found), text, as_json)


@command(None, to=evaluate)
def judge(
    count: Count = 1000,
    glyphs: Objects = "everyday",
    size: Annotated[int, typer.Option(min=32, max=512, help="Pixels of the scenes.")] = 64,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge the judge: real scenes by their own captions, and by each other's."""
    from ..data.scenes.glyphs import glyph_set
    from ..evaluate import suite, unseen_scenes
    from ..evaluate.checker import Judge

    found = list(unseen_scenes.scenes(count, size, glyphs))
    items = [suite.Item(suite.category_of(scene), scene, text) for scene, text, _ in found]
    pictures = [picture for _, _, picture in found]
    court = Judge(glyph_set(glyphs))
    _print("own captions", suite.score(court, items, watched(pictures, "own captions", quiet)), as_json)
    others = suite.shuffled(items)
    _print("shuffled captions", suite.score(court, others, watched(pictures, "shuffled", quiet)), as_json)


@command(None, "dalle evaluate scenes --recipe dalle1 --best-of 1,32 --out out/scenes", to=evaluate)
def scenes(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PICTURES]...", help="Folders of pictures with captions, or - for lines; or draw them."
        ),
    ] = None,
    recipe: Annotated[str, typer.Option(help="The system that draws.")] = "dalle1",
    count: Count = 200,
    best_of: Annotated[
        str | None,
        typer.Option(
            help="Candidates of each caption, of which CLIP chooses one. Default: 1,32 by dalle1 with a CLIP, else 1."
        ),
    ] = None,
    glyphs: Objects = "everyday",
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of the drawing; the captions stay.")] = 0,
    out: Annotated[str, typer.Option(help="Folder for the pictures and their sheets.")] = "out/scenes",
    temperature: Annotated[float | None, typer.Option(help="See `dalle sample`.")] = None,
    top_p: Annotated[float | None, typer.Option(help="See `dalle sample`.")] = None,
    scale: Annotated[float | None, typer.Option(help="See `dalle sample`.")] = None,
    scales: Annotated[
        str | None, typer.Option(help="Several scales of guidance, such as 1,2,3: accuracy against scale.")
    ] = None,
    steps: Annotated[str | None, typer.Option(help="See `dalle sample`.")] = None,
    sampler: Annotated[str | None, typer.Option(help="See `dalle sample`.")] = None,
    guide: Annotated[str | None, typer.Option(help="See `dalle sample`.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    batch_size: BatchSize = None,
    precision: Precision = "auto",
) -> None:
    """Draw held-out captions and let a program judge what is there; or judge given pictures."""
    from .. import console
    from ..data.scenes.glyphs import glyph_set
    from ..evaluate import curve, suite
    from ..evaluate.checker import Judge
    from ..generate.outputs import Collected
    from ..generate.sample import Job, load_system, sample
    from ..generate.sheets import check_sheet

    known = glyph_set(glyphs)
    court = Judge(known)
    if pictures:
        for name in pictures:
            found = list(_lines(known) if name == "-" else suite.from_folder(name, known))
            _print(
                name,
                suite.score(court, [item for item, _ in found], watched([p for _, p in found], name, quiet)),
                as_json,
            )
        return
    system = load_system(recipe)
    choosing = system["system"]["type"] == "dalle1" and "reranker" in (system.get("parts") or {})
    numbers = _numbers("--best-of", best_of or ("1,32" if choosing and not scales else "1"), int, 1)
    if max(numbers) > 1_000_000:
        raise Failure(f"--best-of {max(numbers)}: at most 1000000 candidates", USAGE)
    guidance: list[Any] = _numbers("--scales", scales, float, 0) if scales else [scale]
    pages = {many: f"{out}/scales-best-of-{many}.png" for many in numbers} if scales else {}
    for path in pages.values():
        check_sheet(path, overwrite)
    items = suite.suite(known, count)
    options = {
        "temperature": temperature, "top_p": top_p, "steps": steps, "sampler": sampler, "guidance": guide,
    }  # fmt: skip
    reports = []
    folders = {
        (value, many): f"{out}/scale-{value:g}/best-of-{many}" if scales else f"{out}/best-of-{many}"
        for value in guidance
        for many in numbers
    }
    for folder in folders.values():
        check_sheet(f"{folder}.png", overwrite)
        if not overwrite and glob.glob(f"{glob.escape(folder)}/*.png"):
            raise Failure(f"{folder} holds pictures already: give --overwrite or another --out", WOULD_OVERWRITE)
    for value in guidance:
        for many in numbers:
            drawn, folder = Collected(), folders[value, many]
            job = Job(
                words=[item.caption for item in items], recipe=recipe, rerank=many if many > 1 else None, seed=seed,
                out=folder, sheet=f"{folder}.png", options=options | {"guidance_scale": value}, overwrite=overwrite,
                batch_size=batch_size, precision=precision, quiet=quiet,
            )  # fmt: skip
            sample(job, drawn)
            read = watched((_open(result["path"]) for result in drawn.reported), "judging", quiet, len(items))
            report = suite.score(court, items, read)
            _print(f"best of {many}" + (f", scale {value:g}" if scales else ""), report, as_json)
            reports.append(report)
    for offset, (many, path) in enumerate(pages.items()):
        found = curve.figures(reports[offset :: len(numbers)])
        curve.draw(guidance, found, path)
        title = f"accuracy against scale, best of {many}"
        text = ["", f"{title}; drawn in {path}", *curve.table(guidance, found)]
        console.print_result({"title": title, "scales": guidance, "figures": found, "path": path}, text, as_json)


@command(None, to=evaluate)
def captions(count: Count = 200, glyphs: Objects = "everyday") -> None:
    """Print the suite's captions as JSON lines, for any other system to draw."""
    from .. import console
    from ..data.scenes.glyphs import glyph_set
    from ..evaluate import suite

    for item in suite.suite(glyph_set(glyphs), count):
        console.print_result({"prompt": item.caption, "category": item.category}, [], True)


def _lines(known: Any) -> Any:
    from ..data.scenes.grammar import parse
    from ..evaluate import suite
    from ..generate.requests import read_requests

    for request in read_requests(["-"], plain_field="path", file_fields=("path",)):
        if request.failed:  # figures of a part would be taken for those of the whole
            raise Failure(f"{request.fields['error']}; mend or remove this line", BAD_INPUT)
        scene = parse(request.prompt or "", known)
        yield suite.Item(suite.category_of(scene), scene, request.prompt or ""), _open(request.fields["path"])


def _numbers(option: str, text: str, kind: type, least: float) -> list:
    try:
        found = [kind(part) for part in text.split(",")]
        if min(found) >= least:
            return found
    except ValueError:
        pass
    raise Failure(f"{option} {text}: give numbers of at least {least}, with commas between them", USAGE)


def _open(path: str) -> Any:
    from .. import images

    try:
        picture = images.decode(path)
    except images.BadImage as error:
        raise images.BadImage(f"{path}: {error}") from None
    return images.center_crop(picture, min(picture.size))


def watched(pictures: Any, label: str, quiet: bool, total: int | None = None) -> Any:
    from ..console import Progress

    progress = Progress(label, total or len(pictures), quiet=quiet)
    for picture in pictures:
        yield picture
        progress.advance()
    progress.close()


def _print(title: str, report: Any, as_json: bool) -> None:
    from .. import console

    figures = {name: share.true / max(share.count, 1) for name, share in report.figures().items()}
    wholes = {name: share.true / max(share.count, 1) for name, share in report.wholes().items()}
    lines = ["", title, *str(report).splitlines()]
    console.print_result(
        {"title": title, "figures": figures, "wholes": wholes, "pictures": len(report.items)}, lines, as_json
    )
