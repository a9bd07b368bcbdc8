"""Commands that judge: rerank; and embed, which keeps what CLIP sees."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import StageProgress, print_result
from .app import JUDGE, command
from .data import section
from .options import BatchSize, DataArguments, Json, Overwrite, Precision, Quiet, Sheet

INPUT, MODEL, OUTPUT = "Input", "Model", "Output"


@command(
    JUDGE,
    'dalle rerank out/ --prompt "an avocado chair" --top 8',
    "dalle sample - < prompts.txt | dalle rerank --top 8 -",
)
def rerank(
    pictures: Annotated[
        list[str], typer.Argument(metavar="PICTURE...", help="Files or folders; - reads the lines of another command.")
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="Score against this; repeatable. Default: each line's own.", rich_help_panel=INPUT),
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="File of prompts to score against.", rich_help_panel=INPUT)
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A CLIP checkpoint; repeatable: the mean of their scores. Default: starter/clip.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Keep so many of each prompt.", rich_help_panel=OUTPUT)] = None,
    sheet: Sheet = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    batch_size: BatchSize = None,
    precision: Precision = "auto",
) -> None:
    """Score pictures against prompts with CLIP, the best first."""
    from ..generate.rerank import rerank as score

    models = model or ["starter/clip"]
    raise typer.Exit(
        score(pictures, prompt or [], prompts, models, top, sheet, overwrite, as_json, quiet, batch_size, precision)
    )


@command(
    JUDGE,
    "dalle embed embedded photos",
    "dalle embed embedded data.type=scenes -n 100000 --pictures",
    "dalle train-prior --recipe unclip-diffusion-starter data.type=embeddings data.path=embedded",
)
def embed(
    out: Annotated[Path, typer.Argument(help="Folder to make, or to go on in.")],
    where: DataArguments = None,
    model: Annotated[str, typer.Option(help="A CLIP checkpoint.", rich_help_panel=MODEL)] = "starter/clip",
    count: Annotated[
        int | None, typer.Option("-n", "--count", min=1, help="So many samples. Default: all.", rich_help_panel=INPUT)
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Keep the pictures too, for decoders.", rich_help_panel=OUTPUT)
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Of order, crops and captions.", rich_help_panel=INPUT)
    ] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    precision: Precision = "auto",
) -> None:
    """Compute CLIP embeddings of pictures and captions once, to train priors and decoders from."""
    from .. import checkpoint
    from ..generate.embed import embed as compute

    found = checkpoint.metadata(checkpoint.resolve(model))["recipe"]
    size = found.get("model", {}).get("image", {}).get("size", 224) if isinstance(found.get("model"), dict) else 224
    watch = StageProgress(quiet)
    try:
        result = compute(out, section(where or [], size), model, pictures, count, seed, precision, watch)
    finally:
        watch.close()
    text = [
        f"{result['samples']:,} embeddings of {result['width']} numbers in {out}: train on them with "
        f"data.type=embeddings data.path={out}"
    ]
    if result["replaced"]:
        text.append(f"{result['replaced']} bad samples, for which others stand")
    print_result(result, text, as_json)
