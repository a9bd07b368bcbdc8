"""Commands that work on given pictures by diffusion: inpaint, upscale."""

from typing import Annotated

import typer

from .app import CREATE, command
from .options import (
    INPUT,
    MODEL,
    SAMPLING,
    BatchSize,
    GuidanceInterval,
    GuidanceScale,
    Json,
    Offload,
    Out,
    Overwrite,
    Precision,
    Quiet,
    Sampler,
    Seed,
    Sheet,
    SkipExisting,
    Steps,
)

Threshold = Annotated[float | None, typer.Option(help="Dynamic threshold, such as 0.995.", rich_help_panel=SAMPLING)]


@command(
    CREATE, 'dalle inpaint dog.png --box 40,40,80,80 "a corgi"', "dalle inpaint room.png --script room.jsonl --out room"
)
def inpaint(
    image: Annotated[str, typer.Argument(help="A picture; - reads lines with image, prompt, and mask or box.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[PROMPT]...", help="What to draw in the hole.")] = None,
    mask: Annotated[
        str | None, typer.Option(help="A picture, light or transparent where to draw.", rich_help_panel=INPUT)
    ] = None,
    box: Annotated[str | None, typer.Option(help="Where to draw: x,y,width,height.", rich_help_panel=INPUT)] = None,
    script: Annotated[
        str | None, typer.Option(help="File of JSON lines (prompt, box or mask), in turn.", rich_help_panel=INPUT)
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="System recipe, or a decoder's checkpoint.", rich_help_panel=MODEL)
    ] = "glide-inpaint",
    count: Annotated[
        int, typer.Option("-n", min=1, max=1_000_000, help="Pictures of each prompt.", rich_help_panel=SAMPLING)
    ] = 1,
    seed: Seed = None,
    scale: GuidanceScale = None,
    guided_at: GuidanceInterval = None,
    steps: Steps = None,
    sampler: Sampler = None,
    threshold: Threshold = None,
    out: Out = "out",
    sheet: Sheet = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    quiet: Quiet = False,
    batch_size: BatchSize = None,
    precision: Precision = "auto",
    offload: Offload = False,
) -> None:
    """Draw a part of a picture anew: a box, a mask, or what is transparent; the rest stays to the bit."""
    from ..generate.inpaint import Job
    from ..generate.inpaint import inpaint as draw

    options = {
        "guidance_scale": scale, "guidance_interval": guided_at, "steps": steps, "sampler": sampler,
        "dynamic_threshold": threshold,
    }  # fmt: skip
    raise typer.Exit(
        draw(
            Job(
                image, words or (), mask, box, script, recipe, count, seed, out, sheet, options, overwrite,
                skip_existing, batch_size, precision, as_json, quiet, offload,
            )
        )
    )  # fmt: skip


@command(
    CREATE, "dalle upscale out/*.png --out large", 'dalle sample "a cat" --recipe glide | dalle upscale - --out large'
)
def upscale(
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURE...", help="Files or folders; - reads lines.")],
    prompt: Annotated[
        str | None, typer.Option(help="What they show. Default: what they were drawn from.", rich_help_panel=INPUT)
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="System recipe, or an upsampler's checkpoint.", rich_help_panel=MODEL)
    ] = "glide",
    steps: Steps = None,
    sampler: Sampler = None,
    seed: Seed = None,
    out: Out = "out",
    sheet: Sheet = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    quiet: Quiet = False,
    precision: Precision = "auto",
    offload: Offload = False,
) -> None:
    """Enlarge pictures with a diffusion upsampler."""
    from ..generate.upscale import upscale as enlarge

    options = {"steps": steps, "sampler": sampler}
    raise typer.Exit(
        enlarge(
            pictures,
            prompt,
            recipe,
            options,
            seed,
            out,
            sheet,
            overwrite,
            skip_existing,
            as_json,
            quiet,
            precision,
            offload,
        )
    )
