"""Commands that make pictures: sample, reconstruct."""

from typing import Annotated

import typer

from .app import CREATE, command
from .options import (
    INPUT,
    MODEL,
    OUTPUT,
    SAMPLING,
    BatchSize,
    DryRun,
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


@command(
    CREATE,
    'dalle sample "an avocado chair" --rerank 512 --top 8 --sheet chairs.png',
    "dalle sample - < prompts.txt | dalle rerank --top 8 -",
)
def sample(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="What to draw; - reads standard input.")
    ] = None,
    prompts: Annotated[str | None, typer.Option(help="File of prompts or JSON lines.", rich_help_panel=INPUT)] = None,
    image: Annotated[
        str | None, typer.Option(help="A picture to continue (with --keep-rows).", rich_help_panel=INPUT)
    ] = None,
    keep_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of codes of --image to keep.", rich_help_panel=INPUT)
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="A picture that dalle drew: draw it again.", rich_help_panel=INPUT)
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="System recipe, or a checkpoint that draws. Default: dalle1.", rich_help_panel=MODEL),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("-n", min=1, max=1_000_000, help="Pictures of each prompt. Default: 1.", rich_help_panel=SAMPLING),
    ] = None,
    rerank: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Draw so many, keep CLIP's best.", rich_help_panel=SAMPLING),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="How many --rerank keeps. Default: 1.", rich_help_panel=SAMPLING)
    ] = None,
    seed: Seed = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest.", rich_help_panel=SAMPLING)] = None,
    top_k: Annotated[int | None, typer.Option(help="Choose among so many codes.", rich_help_panel=SAMPLING)] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Choose among codes of this probability.", rich_help_panel=SAMPLING)
    ] = None,
    scale: GuidanceScale = None,
    guided_at: GuidanceInterval = None,
    steps: Steps = None,
    sampler: Sampler = None,
    eta: Annotated[float | None, typer.Option(help="Fresh noise of ddim, 0 to 1.", rich_help_panel=SAMPLING)] = None,
    guide: Annotated[
        str | None, typer.Option(help="Diffusion: free (by the text), clip, classifier.", rich_help_panel=SAMPLING)
    ] = None,
    best_of: Annotated[
        int | None, typer.Option(help="unCLIP: embeddings drawn, the best kept.", rich_help_panel=SAMPLING)
    ] = None,
    prior_scale: Annotated[
        float | None, typer.Option(help="unCLIP: guidance of the prior.", rich_help_panel=SAMPLING)
    ] = None,
    prior_steps: Annotated[
        str | None, typer.Option(help="unCLIP: steps of a diffusion prior.", rich_help_panel=SAMPLING)
    ] = None,
    out: Out = "out",
    sheet: Sheet = None,
    watch: Annotated[
        str | None, typer.Option(help="Also write how diffusion comes to the picture.", rich_help_panel=OUTPUT)
    ] = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    batch_size: BatchSize = None,
    precision: Precision = "auto",
    offload: Offload = False,
) -> None:
    """Draw pictures of prompts; with --rerank, keep the best of many."""
    from ..generate.sample import SampleOptions
    from ..generate.sample import sample as generate

    sampling = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "guidance_scale": scale,
        "guidance_interval": guided_at, "steps": steps, "sampler": sampler, "eta": eta, "guidance": guide,
        "prior_samples": best_of, "prior_guidance_scale": prior_scale, "prior_steps": prior_steps,
    }  # fmt: skip
    options = SampleOptions(
        recipe=recipe, sampling=sampling, num_images=count, seed=seed, out=out, sheet=sheet, overwrite=overwrite,
        skip_existing=skip_existing, json=as_json, dry_run=dry_run, quiet=quiet, batch_size=batch_size,
        precision=precision, offload=offload, rerank=rerank, top=top, reproduce=like, image=image, keep_rows=keep_rows,
        denoising_strip=watch,
    )  # fmt: skip
    raise typer.Exit(generate(words or (), options, prompts))
