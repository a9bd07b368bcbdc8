"""`dalle evaluate vary|interpolate|edit`: what is done with the latents of unseen scenes, measured and judged."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from .evaluate import Count, evaluate, watched
from .latents import drawing
from .measure import (
    check_page,
    complete,
    describe_run,
    opened,
    plainly,
    publish,
    request_line,
    said,
    save_page,
    scenes_given,
    trained_scatter,
    trained_side,
)
from .options import SAMPLING, Objects, numbers


@drawing(evaluate, "dalle evaluate vary -n 50 --sheet varied.png", out="out/vary")
def vary(count: Count = 50, glyphs: Objects = "everyday", *, job: Any) -> int:
    """Vary single objects: how near the picture comes at eta 0, and how often its object is kept.

    --guidance-scale applies only at eta 1: inversion is exact only without guidance.
    """
    from ..data.scenes.glyphs import glyph_set
    from ..evaluate import latents, suite
    from ..evaluate.checker import Judge
    from ..generate.latent_editor import LatentEditor
    from ..generate.outputs import Collected
    from ..generate.vary import vary as draw

    editor = LatentEditor("vary", job)
    if job.dry_run:
        return describe_run(job, editor.recipe, editor.options, count)
    known = glyph_set(glyphs)
    scenes = _single(count, editor.parts["decoder"], glyphs)
    check_page(job.sheet, job.overwrite, job.skip_existing)
    given = scenes_given(job, [(text, picture) for _, text, picture in scenes])
    drawn, paths = (Collected(), Collected()), []
    for eta, results in enumerate(drawn):
        options = {**(job.options or {}), **({} if eta else {"guidance_scale": None})}
        own = replace(job, options=options, out=f"{job.out}/eta-{eta}", sheet=None)
        paths.append(complete(results, draw(given, [float(eta)], 1, own, results)))
    ratios = [one["psnr"] for one in drawn[0].reported]
    back = latents.returned(ratios)
    items = [suite.Item(suite.category_of(scene), scene, text) for scene, text, _ in scenes]
    report = suite.score(Judge(known), items, watched(opened(paths[1]), "judging", job.quiet, count))
    claims = report.claims()
    text = [
        f"{count} unseen scenes of single objects", f"eta 0: {back}", f"eta 1: object kept: {claims['object']}",
        *(f"       {part}: {share}" for part, share in claims.items() if part not in ("object", "count", "rest")),
    ]  # fmt: skip
    line = {"title": "evaluate vary", "recipe": job.recipe, **back.plain, **plainly({"kept": claims["object"]})}
    publish([line], text, job.as_json)
    rows = [
        [(path, "given"), (near, f"eta 0, {ratio:.1f} dB"), (far, f"eta 1, object: {said(verdict.holds('object'))}")]
        for path, near, ratio, far, verdict in zip(given, paths[0], ratios, paths[1], report.verdicts)
    ]
    return save_page(job.sheet, rows)


@drawing(evaluate, "dalle evaluate interpolate -n 50 --noise fixed", out="out/interpolate")
def interpolate(
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=100_000, help="Ways.")] = 50,
    glyphs: Objects = "everyday",
    noise: Annotated[
        str, typer.Option(help="slerp, between the pictures' own, or fixed, a random one.", rich_help_panel=SAMPLING)
    ] = "slerp",
    *,
    job: Any,
) -> int:
    """Go from each of some single objects to the next: how often the frames at the ends show them."""
    from ..data.scenes.glyphs import glyph_set
    from ..evaluate import latents
    from ..evaluate.checker import Judge
    from ..generate.interpolate import interpolate as draw
    from ..generate.latent_editor import LatentEditor
    from ..generate.outputs import Collected

    if noise not in ("slerp", "fixed"):
        raise typer.BadParameter(f"--noise {noise}: choose slerp or fixed")
    editor = LatentEditor("interpolate", job, noise == "slerp")
    if job.dry_run:
        return describe_run(job, editor.recipe, editor.options, count)
    known = glyph_set(glyphs)
    scenes = _single(count + 1, editor.parts["decoder"], glyphs)
    check_page(job.sheet, job.overwrite, job.skip_existing)
    given, drawn = scenes_given(job, [(text, picture) for _, text, picture in scenes]), Collected()
    own = replace(job, out=f"{job.out}/drawn", sheet=None)
    paths = complete(drawn, draw(given, 2, noise, 1, None, own, drawn))  # type: ignore[arg-type]
    court = Judge(known)
    pictures = watched(opened(paths), "judging", job.quiet, count + 1)
    verdicts = [court.verdict(picture, scene) for picture, (scene, _, _) in zip(pictures, scenes)]
    shares = {"frames": latents.shown(verdicts), "ways": latents.both(verdicts)}
    text = [
        f"{count} ways through {count + 1} unseen scenes of single objects, noise {noise}",
        f"frames at an end that show its object: {shares['frames']}",
        f"ways that do at both ends: {shares['ways']}",
    ]
    line = {"title": "evaluate interpolate", "recipe": job.recipe, "noise": noise}
    publish([line | plainly(shares)], text, job.as_json)
    rows = [
        [(path, caption), (one["path"], said(verdict.holds("object")))]
        for path, (_, caption, _), one, verdict in zip(given, scenes, drawn.reported, verdicts)
    ]
    return save_page(job.sheet, rows)


@drawing(evaluate, "dalle evaluate edit -n 50 --strength 0.2,0.3,0.4", out="out/edit")
def edit(
    count: Count = 50,
    glyphs: Objects = "everyday",
    strength: Annotated[
        Any,
        typer.Option(
            parser=numbers(float, 0, 1), metavar="N[,N...]", help="How far to go; several are compared.",
            rich_help_panel=SAMPLING, show_default="0.3",
        ),
    ] = None,
    *,
    job: Any,
) -> int:  # fmt: skip
    """Give single objects another tint or ground: how often it is so, and still the object."""
    from ..data.scenes.glyphs import glyph_set
    from ..evaluate import latents
    from ..evaluate.checker import Judge
    from ..generate.edit import edit as draw
    from ..generate.latent_editor import LatentEditor
    from ..generate.outputs import Collected

    strengths, editor = strength or [0.3], LatentEditor("edit", job)
    if job.dry_run:
        return describe_run(job, editor.recipe, editor.options, count)
    known = glyph_set(glyphs)
    decoder = editor.parts["decoder"]
    edits = list(latents.edits(count, trained_side(decoder), known, trained_scatter(decoder)))
    check_page(job.sheet, job.overwrite, job.skip_existing)
    given, drawn = scenes_given(job, [(one.captions[0], one.picture) for one in edits]), Collected()
    asked = [request_line(image=path, **dict(zip(("from", "to"), one.captions))) for path, one in zip(given, edits)]
    own = replace(job, out=f"{job.out}/drawn", sheet=None)
    paths = complete(drawn, draw(asked, None, None, strengths, own, drawn))
    court, many = Judge(known), len(strengths)
    pictures = watched(opened(paths), "judging", job.quiet, count * many)
    outcomes = [latents.outcome(court, edits[i // many], picture) for i, picture in enumerate(pictures)]
    text = [f"{count} unseen scenes of single objects; edited: the attribute is as asked, and the object the same"]
    lines = []
    for i, one in enumerate(strengths):
        shares = latents.turned(outcomes[i::many])
        lines.append({"title": "evaluate edit", "recipe": job.recipe, "strength": one, **plainly(shares)})
        text.append(f"strength {one:<5g} " + ", ".join(f"{name}: {share}" for name, share in shares.items()))
    publish(lines, text, job.as_json)
    rows = []
    for i, (path, one) in enumerate(zip(given, edits)):
        some = slice(many * i, many * (i + 1))
        own_cells = zip(drawn.reported[some], outcomes[some])
        made = [(r["path"], said(o.turned and o.kept, f"{r['strength']:g} {r['prompt']}")) for r, o in own_cells]
        rows.append([(path, one.captions[0]), *made])
    return save_page(job.sheet, rows)


def _single(count: int, decoder: Any, glyphs: str) -> list[tuple[Any, str, Any]]:
    """Unseen scenes, none twice, of single objects in places as a decoder was trained on; captions and pictures."""
    from ..evaluate import unseen_scenes

    kinds, scatter = {"single": 1.0}, trained_scatter(decoder)
    return list(unseen_scenes.scenes(count, trained_side(decoder), glyphs, True, kinds, scatter))
