"""`dalle probe ...`: what an embedding holds, and unCLIP beside GLIDE (Ramesh et al. 2022, sections 4 to 7)."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any

import typer

from .app import JUDGE, command, subgroup
from .latents import drawing
from .options import (
    INPUT,
    MODEL,
    SAMPLING,
    BatchSize,
    DryRun,
    GuidanceScale,
    Images,
    Json,
    Objects,
    Out,
    Overwrite,
    Precision,
    Quiet,
    Seed,
    Sheet,
    SkipExisting,
    Steps,
    UnclipRecipe,
    numbers,
)

BATCH = 256  # pictures embedded together to find components

probe = subgroup("probe", JUDGE, "Inspect CLIP embeddings, and compare unCLIP with GLIDE.")

Captions = Annotated[int, typer.Option(min=1, max=100_000, help="How many captions.", rich_help_panel=INPUT)]
Each = Annotated[
    int, typer.Option("-n", min=1, max=1_000_000, help="Pictures of each caption.", rich_help_panel=SAMPLING)
]
Against = Annotated[str, typer.Option(help="The other system.", rich_help_panel=MODEL)]
Scales = Annotated[
    Any,
    typer.Option(
        parser=numbers(float, 0, 999), metavar="N,N,...", help="Scales of guidance.", rich_help_panel=SAMPLING
    ),
]


@drawing(probe, "dalle probe pca dog.png --components 1,2,5,10,20 --sheet pca.png")
def pca(
    pictures: Images,
    components: Annotated[
        Any,
        typer.Option(
            parser=numbers(int, 1, 1_000_000), metavar="N,N,...", help="How many to draw from.",
            show_default="1,2,5,10,20", rich_help_panel=SAMPLING,
        ),
    ] = None,
    basis: Annotated[
        str | None,
        typer.Option(help="Folder of pictures that tell the components. Default: scenes.", rich_help_panel=INPUT),
    ] = None,
    glyphs: Objects = "everyday",
    count: Annotated[int, typer.Option("--scenes", min=2, help="How many scenes.", rich_help_panel=INPUT)] = 1000,
    *,
    job: Any,
) -> int:  # fmt: skip
    """Redraw a picture from ever more principal components of its embedding."""
    from ..data.scenes.glyphs import glyph_set
    from ..evaluate import embedding_probes as probes

    names = None
    if basis:
        from ..generate.reconstruct import expand_folders

        names = expand_folders([basis])
    else:
        glyph_set(glyphs)

    def told(size: int) -> Any:
        return _files(names, size) if names else _scenes(count, size, glyphs)

    return probes.pca(pictures, components or [1, 2, 5, 10, 20], told, job)


@drawing(probe, 'dalle probe typographic apple.png iPod --label "an apple" --label "a dog" -n 8')
def typographic(
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="A file; - reads the lines of another command.")],
    word: Annotated[str, typer.Argument(metavar="WORD", help="What to write on it.")],
    label: Annotated[
        list[str] | None,
        typer.Option(help="A caption to choose among; repeatable. Default: one of each glyph.", rich_help_panel=INPUT),
    ] = None,
    glyphs: Objects = "everyday",
    count: Annotated[int, typer.Option("-n", min=0, max=1_000_000, help="Variations.", rich_help_panel=SAMPLING)] = 4,
    *,
    job: Any,
) -> int:
    """Paste a word on a picture: what CLIP then takes it for, and what the decoder draws of that."""
    from ..data.scenes.glyphs import glyph_set
    from ..data.scenes.grammar import Scene, Thing, caption
    from ..evaluate.typographic import typographic as draw

    labels = label or [caption(Scene((Thing(name),))) for name in glyph_set(glyphs).names]
    return draw([picture], word, labels, count, job)


@drawing(probe, 'dalle probe prior "a red rocket" -n 8 --sheet drives.png')
def prior(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CAPTION]...", help="What to draw; - reads lines. Default: captions of the suite."),
    ] = None,
    prompts: Annotated[str | None, typer.Option(help="File of captions or JSON lines.", rich_help_panel=INPUT)] = None,
    captions: Captions = 50,
    glyphs: Objects = "everyday",
    count: Each = 1,
    wordless: Annotated[
        bool, typer.Option("--wordless", help="The decoder reads no caption: only the embeddings speak.")
    ] = False,
    *,
    job: Any,
) -> int:
    """Drive one decoder by caption alone, by text embedding, and by the prior; judge all three."""
    import sys

    from ..data.scenes.glyphs import glyph_set
    from ..data.scenes.grammar import parse
    from ..evaluate import embedding_probes as probes
    from ..evaluate import grouped, suite
    from ..generate.outputs import Results

    known = glyph_set(glyphs)
    if not words and not prompts:
        words = [item.caption for item in suite.suite(known, captions)]
    drawn = Results(job.as_json, ("index", "seed", "skipped", "drive", "score", "path", "prompt"))
    code = probes.prior(words or (), prompts, count, job, drawn, wordless)
    if drawn.reported:
        outside = {one["prompt"] for one in drawn.reported if parse(one.get("prompt") or "", known) is None}
        if outside and not job.quiet:
            print(f"{len(outside)} captions are outside the grammar of the scenes and are not judged", file=sys.stderr)
        found = grouped.by_kind(drawn.reported, "drive", known)
        lines = [{"title": "probe prior", "drive": name, **one.plain} for name, one in found.items()]
        _report(lines, ["", *grouped.table("drive", found)], job.as_json)
    return code


@command(None, "dalle probe binding --recipe unclip --against glide --captions 50 --sheet binding.png", to=probe)
def binding(
    captions: Captions = 50,
    glyphs: Objects = "everyday",
    count: Each = 1,
    recipe: UnclipRecipe = "unclip",
    against: Against = "glide",
    seed: Seed = None,
    scale: GuidanceScale = None,
    steps: Steps = None,
    out: Out = "out/binding",
    sheet: Sheet = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    batch_size: BatchSize = None,
    precision: Precision = "auto",
) -> None:
    """Draw two objects in two colours with two systems, and judge which object got which colour."""
    from ..data.scenes.glyphs import glyph_set
    from ..data.scenes.grammar import caption
    from ..evaluate import binding as judging
    from ..evaluate.checker import Judge
    from ..evaluate.compare import Contest
    from ..generate.sample import Job

    known = glyph_set(glyphs)
    scenes = judging.scenes(known, captions)
    job = Job(
        seed=seed, out=out, sheet=sheet, overwrite=overwrite, skip_existing=skip_existing, batch_size=batch_size,
        precision=precision, dry_run=dry_run, quiet=quiet,
    )  # fmt: skip
    given = {"steps": steps} if steps else {}
    contest = Contest((recipe, against), [caption(scene) for scene in scenes], count, (scale,), job, given)
    if dry_run:
        return
    contest.draw()
    court = Judge(known)
    outcomes = {
        name: judging.outcomes(court, scenes, _paths(drawn), _watched(f"judging {name}", len(scenes), quiet))
        for (name, _), drawn in contest.drawn.items()
    }
    found = {name: judging.shares(one for row in rows for one in row) for name, rows in outcomes.items()}
    lines = [
        {"title": "probe binding", "recipe": name, "pictures": shares["bound"].count, **_plain(shares)}
        for name, shares in found.items()
    ]
    _report(lines, judging.table(found), as_json)
    if sheet:
        contest.sheet({name: [[judging.name(one) for one in row] for row in rows] for name, rows in outcomes.items()})


@command(None, "dalle probe diversity --scales 1,2,3 --captions 25 -n 4 --sheet diversity.png", to=probe)
def diversity(
    captions: Captions = 25,
    glyphs: Objects = "everyday",
    count: Each = 4,
    recipe: UnclipRecipe = "unclip",
    against: Against = "glide",
    scales: Scales = None,
    clip: Annotated[str, typer.Option(help="The CLIP whose features tell pictures apart.")] = "starter/clip",
    seed: Seed = None,
    steps: Steps = None,
    out: Out = "out/diversity",
    sheet: Sheet = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    batch_size: BatchSize = None,
    precision: Precision = "auto",
) -> None:
    """Draw captions several times at several scales: how often as asked, and how different."""
    from ..checkpoint import resolve
    from ..data.scenes.glyphs import glyph_set
    from ..evaluate import curve, grouped, suite
    from ..evaluate import diversity as measuring
    from ..evaluate.checker import Judge
    from ..evaluate.compare import Contest, features
    from ..generate.sample import Job

    if count < 2:
        raise typer.BadParameter("-n 1: one picture of a caption differs from nothing; draw at least two")
    known = glyph_set(glyphs)
    resolve(clip)
    job = Job(
        seed=seed, out=out, sheet=sheet, overwrite=overwrite, skip_existing=skip_existing, batch_size=batch_size,
        precision=precision, dry_run=dry_run, quiet=quiet,
    )  # fmt: skip
    texts = [item.caption for item in suite.suite(known, captions)]
    given = {"steps": steps} if steps else {}
    contest = Contest((recipe, against), texts, count, scales or (1.0, 2.0, 3.0), job, given)
    if dry_run:
        return
    contest.draw()
    court, found = Judge(known), []
    for (name, scale), drawn in contest.drawn.items():
        spreads = [measuring.spread(one) for one in features(drawn, clip, precision)]
        asked = grouped.judged(court, [one for row in drawn for one in row])
        found.append(measuring.Point(name, scale or 0.0, asked, measuring.mean(spreads)))
    _report([{"title": "probe diversity", **one.plain} for one in found], measuring.table(found), as_json)
    if sheet:
        curve.draw(list(dict.fromkeys(one.scale for one in found)), measuring.curves(found), sheet)


def _report(lines: list[dict[str, Any]], text: Sequence[str], as_json: bool) -> None:
    """Figures as a line each for programs, or as one table."""
    from .. import console

    if console.wants_json(as_json):
        for line in lines:
            console.print_result(line, [], True)
    else:
        console.print_text("\n".join(text))


def _plain(shares: Any) -> dict[str, Any]:
    found = {name: share.true / share.count for name, share in shares.items()}
    return found | {f"{name}_interval": share.interval for name, share in shares.items()}


def _paths(drawn: list[list[dict[str, Any]]]) -> list[list[str]]:
    return [[result["path"] for result in row] for row in drawn]


def _watched(label: str, total: int, quiet: bool) -> Any:
    from ..console import Progress

    return Progress(label, total, quiet=quiet).advance


def _scenes(count: int, size: int, glyphs: str) -> Iterator[Any]:
    """Batches of unseen scenes, (B, 3, size, size)."""
    from ..evaluate import unseen_scenes

    pictures = (picture for _, _, picture in unseen_scenes.scenes(count, size, glyphs))
    while some := list(islice(pictures, BATCH)):
        yield unseen_scenes.batch(some)


def _files(names: list[str], size: int) -> Iterator[Any]:
    """Batches of picture files, (B, 3, size, size)."""
    import torch

    from .. import images

    for start in range(0, len(names), BATCH):
        some = names[start : start + BATCH]
        yield torch.stack([images.to_tensor(images.square(images.open_image(name), size)) for name in some])
