"""Commands that judge images with CLIP: rerank; and embed, which stores the embeddings that it judges by."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import StageProgress, print_result
from .app import JUDGE, command
from .data import section
from .options import (
    INPUT,
    MODEL,
    OUTPUT,
    BatchSize,
    DataArguments,
    Images,
    Json,
    Overwrite,
    Precision,
    Quiet,
    Sheet,
)


@command(
    JUDGE,
    'dalle rerank out/ --prompt "an avocado chair" --top 8',
    "dalle sample - < prompts.txt | dalle rerank --top 8 -",
)
def rerank(
    paths: Images,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", metavar="TEXT", rich_help_panel=INPUT,
            help="Prompt to score against; repeatable. Default: each line's own.",
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts", metavar="FILE", help="File of prompts to score against, one per line.", rich_help_panel=INPUT
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="NAME|PATH", rich_help_panel=MODEL, show_default="starter/clip",
            help="CLIP checkpoint; repeatable: scores are averaged.",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", metavar="N", min=1, rich_help_panel=OUTPUT, help="Images to report per prompt. Default: all."
        ),
    ] = None,
    sheet: Sheet = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    batch_size: BatchSize = None,
    precision: Precision = "auto",
) -> None:  # fmt: skip
    """Rank images by CLIP similarity to prompts, the best first."""
    from ..generate.rerank import rerank as run

    raise typer.Exit(
        run(
            paths, prompts=prompt or (), prompts_file=prompts, models=model or ["starter/clip"], top=top, sheet=sheet,
            overwrite=overwrite, batch_size=batch_size, precision=precision, as_json=as_json, quiet=quiet,
        )
    )  # fmt: skip


@command(
    JUDGE,
    "dalle embed photos --out embedded",
    "dalle embed data.type=scenes -n 100000 --store-images --out embedded",
    "dalle train-prior --recipe unclip-diffusion-starter data.type=embeddings data.path=embedded",
)
def embed(
    where: DataArguments = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FOLDER", help="Folder of the embeddings, new or to resume.", rich_help_panel=OUTPUT
        ),
    ] = Path("embedded"),
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|PATH", help="CLIP checkpoint.", rich_help_panel=MODEL)
    ] = "starter/clip",
    num_samples: Annotated[
        int | None,
        typer.Option(
            "-n", "--num-samples", metavar="N", min=1, rich_help_panel=INPUT, help="Samples to embed. Default: all."
        ),
    ] = None,
    store_images: Annotated[
        bool, typer.Option("--store-images", help="Store the images too, for decoders.", rich_help_panel=OUTPUT)
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", metavar="N", min=0, max=2**63 - 1, help="Seed of order, crops and captions.",
            rich_help_panel=INPUT,
        ),
    ] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    precision: Precision = "auto",
) -> None:  # fmt: skip
    """Compute CLIP embeddings of images and captions once, to train priors and decoders on them."""
    from ..generate.embed import embed as run
    from ..generate.embed import image_size

    progress = StageProgress(quiet)
    try:
        data = section(where or [], image_size(model))
        result = run(out, data, model, store_images, num_samples, seed, precision, progress)
    finally:
        progress.close()
    text = [
        f"{result['num_samples']:,} embeddings of width {result['embed_dim']} in {out}; train on them with "
        f"data.type=embeddings data.path={out}"
    ]
    if result["bad_samples"]:
        text.append(f"{result['bad_samples']} samples could not be read and were replaced by others")
    print_result(result, text, as_json)
