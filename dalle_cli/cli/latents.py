"""Commands on CLIP embeddings of pictures: vary, interpolate, edit."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .app import CREATE, app, command
from .options import (
    INPUT,
    OUTPUT,
    SAMPLING,
    BatchSize,
    DiffusionRecipe,
    DryRun,
    GuidanceScale,
    Images,
    Json,
    Offload,
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


def drawing(
    to: typer.Typer, *examples: str, recipe: str | None = None, out: str = "out"
) -> Callable[[Callable[..., int]], None]:
    """Register a function that returns an exit code as a command with the options of all that edit CLIP latents.

    The function receives those options as `job`. recipe: the default system, for commands that take other systems than
    those of type unclip. out: the default folder.
    """
    shared = {**_common, "out": _common["out"].replace(default=out)}
    if recipe:
        shared["recipe"] = _common["recipe"].replace(default=recipe, annotation=DiffusionRecipe)

    def register(function: Callable[..., int]) -> None:
        def run(**given: Any) -> None:
            from ..generate.latent_editor import Job

            common = {name: given.pop(name) for name in shared}
            options = {name: common.pop(name) for name in ("scale", "steps")}
            options["guidance_scale"] = options.pop("scale")
            raise typer.Exit(function(**given, job=Job(options=options, **common)))

        own = inspect.signature(function).parameters
        everything = {name: one for name, one in own.items() if name != "job"} | shared
        plain = [one.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for one in everything.values()]
        run.__signature__ = inspect.Signature(plain)  # type: ignore[attr-defined]
        run.__annotations__ = {name: one.annotation for name, one in everything.items()}
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        command(CREATE if to is app else None, *examples, to=to)(run)

    return register


def _options(
    recipe: UnclipRecipe = "unclip",
    seed: Seed = None,
    scale: GuidanceScale = None,
    steps: Steps = None,
    out: Out = "out",
    sheet: Sheet = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    batch_size: BatchSize = None,
    precision: Precision = "auto",
    offload: Offload = False,
) -> None: ...


_common = dict(inspect.signature(_options).parameters)


@drawing(
    app,
    "dalle vary dog.png --eta 0.7 -n 8",
    "dalle vary dog.png --etas 0,0.3,0.7,1 --sheet row.png",
    "dalle sample - < prompts.txt | dalle rerank --top 4 - | dalle vary -",
)
def vary(
    pictures: Images,
    eta: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How new: 0 is the picture itself. Default: 0.7.", rich_help_panel=SAMPLING),
    ] = None,
    etas: Annotated[
        Any,
        typer.Option(
            parser=numbers(float, 0, 1), metavar="N,N,...", help="Several, in a row.", rich_help_panel=SAMPLING
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("-n", min=1, max=1_000_000, help="Variations of each picture.", rich_help_panel=SAMPLING)
    ] = 1,
    *,
    job: Any,
) -> int:
    """Draw other pictures of what a picture shows: its CLIP embedding is kept, the rest is new."""
    from ..generate.vary import vary as draw

    if eta is not None and etas:
        raise typer.BadParameter("give --eta or --etas, not both")
    return draw(pictures, etas or [0.7 if eta is None else eta], count, job)


@drawing(
    app,
    "dalle interpolate cat.png dog.png --frames 9 --gif way.gif",
    'dalle interpolate cat.png "a snowman" --noise fixed --paths 3 --sheet ways.png',
)
def interpolate(
    ends: Annotated[
        list[str], typer.Argument(metavar="END...", help="Pictures or texts, from each to the next; - reads lines.")
    ],
    frames: Annotated[
        int, typer.Option(min=2, max=10_000, help="Pictures from one end to the next.", rich_help_panel=SAMPLING)
    ] = 9,
    noise: Annotated[
        str | None,
        typer.Option(
            help="slerp, from one picture's own to the other's, or fixed, a random one. Default: slerp for one path.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    paths: Annotated[
        int, typer.Option(min=1, max=1000, help="Ways, each of a random noise.", rich_help_panel=SAMPLING)
    ] = 1,
    gif: Annotated[str | None, typer.Option(help="Also write an animation.", rich_help_panel=OUTPUT)] = None,
    *,
    job: Any,
) -> int:
    """Draw the way from one picture to another through what lies between their CLIP embeddings."""
    from ..generate.interpolate import interpolate as draw

    if noise not in (None, "slerp", "fixed"):
        raise typer.BadParameter(f"--noise {noise}: choose slerp or fixed")
    return draw(ends, frames, noise, paths, gif, job)  # type: ignore[arg-type]


@drawing(
    app,
    'dalle edit house.png --from "a photo" --to "a winter photo" --strength 0.1,0.2,0.3',
    'dalle edit - --to "a red pear" < pears.jsonl',
)
def edit(
    pictures: Images,
    to: Annotated[
        str | None, typer.Option(help="What it is to show. Default: each line's own `to`.", rich_help_panel=INPUT)
    ] = None,
    described: Annotated[
        str | None,
        typer.Option("--from", help="What it shows. Default: what it was drawn from.", rich_help_panel=INPUT),
    ] = None,
    strength: Annotated[
        Any,
        typer.Option(
            parser=numbers(float, 0, 1), metavar="N[,N...]", help="How far to go; several, in a row.",
            rich_help_panel=SAMPLING, show_default="0.3",
        ),
    ] = None,
    *,
    job: Any,
) -> int:  # fmt: skip
    """Turn a picture from what one text says to what another asks, and keep the rest."""
    from ..generate.edit import edit as draw

    return draw(pictures, to, described, strength or [0.3], job)
