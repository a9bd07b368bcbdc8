"""Commands that carry weights over: export."""

from pathlib import Path
from typing import Annotated

import typer

from .main import app


@app.command(epilog="Example: dalle export checkpoints/clip-starter --out clip.safetensors")
def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's file, run folder or name.")],
    out: Annotated[str, typer.Option(help="File to write.")],
    precision: Annotated[str, typer.Option(help="Type of the weights: float16, bf16 or float32.")] = "float16",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a checkpoint as one small file that carries its recipe and tokenizer."""
    from ..convert.native import export as write
    from . import results

    write(checkpoint, Path(out), precision, overwrite)
    results.report({"path": out, "precision": precision}, [out], False)
