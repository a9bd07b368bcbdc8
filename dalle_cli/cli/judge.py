"""Commands that judge: rerank, evaluate."""

from typing import Annotated

import typer

from .create import AsJson, BatchSize, Overwrite, Precision, Quiet, Sheet
from .main import app

INPUT, MODEL, OUTPUT = "Input", "Model", "Output"


@app.command(
    epilog='Examples: dalle rerank out/ --prompt "an avocado chair" --top 8   |   '
    "dalle sample - < prompts.txt | dalle rerank --top 8 -"
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
    model: Annotated[str, typer.Option(help="A CLIP checkpoint.", rich_help_panel=MODEL)] = "starter/clip",
    top: Annotated[int | None, typer.Option(min=1, help="Keep so many of each prompt.", rich_help_panel=OUTPUT)] = None,
    sheet: Sheet = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    batch_size: BatchSize = None,
    precision: Precision = "auto",
) -> None:
    """Score pictures against prompts with CLIP, the best first."""
    from ..generate.rerank import rerank as score

    raise typer.Exit(
        score(pictures, prompt or [], prompts, model, top, sheet, overwrite, as_json, quiet, batch_size, precision)
    )
