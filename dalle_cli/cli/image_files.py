"""Commands that work on image files: inpaint, upscale, reconstruct."""

from typing import Annotated

import typer

from .app import CREATE, command
from .options import (
    INPUT,
    MODEL,
    BatchSize,
    DiffusionRecipe,
    DryRun,
    DynamicThreshold,
    GuidanceInterval,
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
    Sampler,
    Seed,
    Sheet,
    SkipExisting,
    Steps,
)


@command(
    CREATE,
    'dalle inpaint dog.png --box 40,40,80,80 "a corgi"',
    'dalle inpaint dog.png --mask mask.png "a corgi" -n 4 --sheet corgis.png',
    "dalle inpaint room.png --script room.jsonl --out room",
)
def inpaint(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="An image file; - reads JSON lines (image, prompt, mask or box).")
    ],
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="What to generate in the masked region.")
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            "--mask", metavar="FILE", rich_help_panel=INPUT,
            help="Image of the same size, light or transparent where to inpaint. Default: the image's transparency.",
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option("--box", metavar="X,Y,W,H", help="Region to inpaint, in pixels.", rich_help_panel=INPUT),
    ] = None,
    script: Annotated[
        str | None,
        typer.Option(
            "--script", metavar="FILE", rich_help_panel=INPUT,
            help="JSON lines (prompt, and box or mask), each applied to the result of the line before.",
        ),
    ] = None,
    recipe: DiffusionRecipe = "glide-inpaint",
    num_images: NumImages = 1,
    seed: Seed = None,
    guidance_scale: GuidanceScale = None,
    guidance_interval: GuidanceInterval = None,
    steps: Steps = None,
    sampler: Sampler = None,
    dynamic_threshold: DynamicThreshold = None,
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
) -> None:  # fmt: skip
    """Inpaint a region of an image from a prompt: a box, a mask, or its transparent part."""
    from ..generate.inpaint import InpaintOptions
    from ..generate.inpaint import inpaint as run

    sampling = {
        "guidance_scale": guidance_scale, "guidance_interval": guidance_interval, "steps": steps, "sampler": sampler,
        "dynamic_threshold": dynamic_threshold,
    }  # fmt: skip
    options = InpaintOptions(
        image=image, prompts=prompts or (), mask=mask, box=box, script=script, recipe=recipe, num_images=num_images,
        seed=seed, out=out, sheet=sheet, sampling=sampling, overwrite=overwrite, skip_existing=skip_existing,
        batch_size=batch_size, precision=precision, json=as_json, dry_run=dry_run, quiet=quiet, offload=offload,
    )  # fmt: skip
    raise typer.Exit(run(options))


@command(
    CREATE,
    "dalle upscale out/*.png --out large",
    'dalle sample "a cat" --recipe glide | dalle upscale - --out large',
)
def upscale(
    paths: Images,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", metavar="TEXT", rich_help_panel=INPUT,
            help="Caption of the images. Default: the prompt in their line or file, or none.",
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe", metavar="NAME|PATH", help="System recipe, or the checkpoint of an upsampler.",
            rich_help_panel=MODEL,
        ),
    ] = "glide",
    steps: Steps = None,
    sampler: Sampler = None,
    seed: Seed = None,
    out: Out = "out",
    sheet: Sheet = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    precision: Precision = "auto",
    offload: Offload = False,
    processes: Processes = 1,
) -> None:  # fmt: skip
    """Enlarge images with a diffusion upsampler."""
    from ..generate.options import GenerationOptions
    from ..generate.upscale import upscale as run

    options = GenerationOptions(
        recipe=recipe, sampling={"steps": steps, "sampler": sampler}, seed=seed, out=out, sheet=sheet,
        overwrite=overwrite, skip_existing=skip_existing, precision=precision, offload=offload, json=as_json,
        dry_run=dry_run, quiet=quiet,
    )  # fmt: skip
    raise typer.Exit(run(paths, prompt, options))


@command(CREATE, "dalle reconstruct photos/*.jpg --out out --sheet pairs.png")
def reconstruct(
    paths: Images,
    model: Annotated[
        str,
        typer.Option("--model", metavar="NAME|PATH", help="Checkpoint of a dVAE or VQGAN.", rich_help_panel=MODEL),
    ] = "starter/dvae",
    size: Annotated[
        int | None,
        typer.Option(
            "--size", metavar="PIXELS", min=8, rich_help_panel=MODEL,
            help="Side of the squares that are encoded. Default: that of training.",
        ),
    ] = None,
    out: Out = "out",
    sheet: Sheet = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    batch_size: BatchSize = None,
    precision: Precision = "auto",
    processes: Processes = 1,
) -> None:  # fmt: skip
    """Reconstruct images with a dVAE or VQGAN, and measure PSNR and the tokens used."""
    from ..generate.options import GenerationOptions
    from ..generate.reconstruct import reconstruct as run

    options = GenerationOptions(
        out=out, sheet=sheet, overwrite=overwrite, skip_existing=skip_existing, batch_size=batch_size,
        precision=precision, json=as_json, dry_run=dry_run, quiet=quiet,
    )  # fmt: skip
    raise typer.Exit(run(paths, model, size, options))
