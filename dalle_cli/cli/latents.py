"""Commands that edit images through their CLIP latents: vary, interpolate, edit."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .app import CREATE, command
from .options import (
    INPUT,
    OUTPUT,
    SAMPLING,
    BatchSize,
    DryRun,
    GuidanceScale,
    Images,
    Json,
    NumImages,
    Offload,
    Out,
    Overwrite,
    Precision,
    Processes,
    Quiet,
    Seed,
    Sheet,
    SkipExisting,
    Steps,
    UnclipRecipe,
    numbers,
)


def choice(*names: str) -> Callable[[str], str]:
    """Return a parser that accepts one of several words."""

    def parse(text: str) -> str:
        if text in names:
            return text
        raise typer.BadParameter(f"'{text}': choose {' or '.join(names)}")

    return parse


Crop = Annotated[
    str,
    typer.Option(
        "--crop", parser=choice("center", "pad"), metavar="center|pad", rich_help_panel=INPUT,
        help="How images become squares: their middle, or all of them on white.",
    ),
]  # fmt: skip


def latent_command(*examples: str) -> Callable[[Callable[..., int]], None]:
    """Register a function that returns an exit code as a command with the options of all that edit CLIP latents.

    The function receives those options as `options`.
    """

    def register(function: Callable[..., int]) -> None:
        def run(**arguments: Any) -> None:
            from ..generate.latent_editor import LatentOptions

            common = {name: arguments.pop(name) for name in _common}
            sampling = {name: common.pop(name) for name in ("guidance_scale", "steps")}
            common["json"] = common.pop("as_json")
            del common["processes"]
            raise typer.Exit(function(**arguments, options=LatentOptions(sampling=sampling, **common)))

        parameters = {name: one for name, one in inspect.signature(function).parameters.items() if name != "options"}
        parameters |= _common
        positional = [one.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for one in parameters.values()]
        run.__signature__ = inspect.Signature(positional)  # type: ignore[attr-defined]
        run.__annotations__ = {name: one.annotation for name, one in parameters.items()}
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        command(CREATE, *examples)(run)

    return register


def _options(
    recipe: UnclipRecipe = "unclip",
    crop: Crop = "center",
    seed: Seed = None,
    guidance_scale: GuidanceScale = None,
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
    processes: Processes = 1,
) -> None: ...


_common = dict(inspect.signature(_options).parameters)


@latent_command(
    "dalle vary dog.png --eta 0.7 -n 8",
    "dalle vary dog.png --eta 0,0.3,0.7,1 --sheet row.png",
    "dalle sample - < prompts.txt | dalle rerank --top 4 - | dalle vary -",
)
def vary(
    paths: Images,
    eta: Annotated[
        Any,
        typer.Option(
            "--eta", parser=numbers(float, 0, 1), metavar="X[,X...]", rich_help_panel=SAMPLING, show_default="0.7",
            help="Fresh noise of DDIM, 0 to 1: 0 reconstructs the image. Several values make a row of variations.",
        ),
    ] = None,
    num_images: NumImages = 1,
    *,
    options: Any,
) -> int:  # fmt: skip
    """Generate variations of images: the CLIP embedding is kept, and what it does not hold is new."""
    from ..generate.vary import vary as run

    return run(paths, eta or [0.7], num_images, options)


@latent_command(
    "dalle interpolate cat.png dog.png --frames 9 --gif path.gif",
    'dalle interpolate cat.png "a snowman" --noise fixed --paths 3 --sheet paths.png',
)
def interpolate(
    endpoints: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE|TEXT...", help="Two or more endpoints in order; - reads JSON lines."),
    ],
    frames: Annotated[
        int,
        typer.Option(
            "--frames", metavar="N", min=2, max=10_000, rich_help_panel=SAMPLING,
            help="Images from each endpoint to the next, both included.",
        ),
    ] = 9,
    noise: Annotated[
        Any,
        typer.Option(
            "--noise", parser=choice("slerp", "fixed"), metavar="slerp|fixed", rich_help_panel=SAMPLING,
            help="slerp: between the images' own noises; fixed: a random one. Default: slerp for one path, else fixed.",
        ),
    ] = None,
    paths: Annotated[
        int,
        typer.Option(
            "--paths", metavar="N", min=1, max=1000, help="Paths of different noise.", rich_help_panel=SAMPLING
        ),
    ] = 1,
    gif: Annotated[
        str | None,
        typer.Option("--gif", metavar="FILE.gif", help="Write an animation as well.", rich_help_panel=OUTPUT),
    ] = None,
    *,
    options: Any,
) -> int:  # fmt: skip
    """Interpolate between images or texts: their CLIP embeddings and noises along great circles."""
    from ..generate.interpolate import interpolate as run

    return run(endpoints, frames, noise, paths, gif, options)


@latent_command(
    'dalle edit house.png --from "a photo" --to "a winter photo" --strength 0.1,0.2,0.3',
    'dalle edit - --to "a red pear" < pears.jsonl',
)
def edit(
    paths: Images,
    target: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="TEXT", rich_help_panel=INPUT, help="Caption to edit to. Default: each line's field `to`."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="TEXT", rich_help_panel=INPUT,
            help="Caption of the images as they are. Default: the prompt in their line or file, or none.",
        ),
    ] = None,
    strength: Annotated[
        Any,
        typer.Option(
            "--strength", parser=numbers(float, 0, 1), metavar="X[,X...]", rich_help_panel=SAMPLING, show_default="0.3",
            help="Fraction of the angle to the text diff, 0 to 1. Several values make a row of edits.",
        ),
    ] = None,
    *,
    options: Any,
) -> int:  # fmt: skip
    """Edit images by text: rotate the CLIP embedding towards the difference of two captions."""
    from ..generate.edit import edit as run

    return run(paths, target, baseline, strength or [0.3], options)
