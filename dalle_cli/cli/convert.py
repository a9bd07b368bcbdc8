"""Commands that convert weights: import, export."""

from typing import Annotated

import typer

from ..console import log
from .app import MANAGE, command
from .options import Json, Overwrite


@command(
    MANAGE,
    "dalle import ViT-B-32.pt --out checkpoints/vit-b32 --vocab bpe_simple_vocab_16e6.txt.gz",
    "dalle import dvae/ --out checkpoints/openai-dvae",
    "dalle import base.pt model.head_dim=32 --out checkpoints/base",
    "dalle import hf:kakaobrain/karlo-v1-alpha --system --out checkpoints/karlo",
    name="import",
)
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="File or folder of published weights, or hf:OWNER/NAME of the hub, then @REVISION or :FILE.",
        ),
    ],
    out: Annotated[
        str, typer.Option(metavar="PATH", help="Folder for the checkpoint, or a file ending in .safetensors.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="What the weights do not store, such as model.head_dim=32 or task.size=128; "
            "with --system after the part: decoder.model.head_dim=32.",
        ),
    ] = None,
    vocab: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Vocabulary: file or folder. Default: next to the weights, or installed."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="Store as fp16, bf16 or float32. Default: the dtypes of the weights."),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Activation of a CLIP: quick-gelu or gelu. Default: its configuration's."),
    ] = None,
    system: Annotated[
        bool,
        typer.Option("--system", help="Import all models of a folder (Karlo, GLIDE) and write their system recipe."),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Import published weights as a checkpoint; the layout is recognized by its keys.

    Nothing in a file is executed. Only sources that begin with hf: are downloaded.
    """
    from ..console import align, print_result
    from ..convert.importing import ImportOptions, import_weights
    from ..convert.systems import import_system

    if system and activation:
        raise typer.BadParameter("--activation is an option of one CLIP: use clip.model.text.activation=gelu")
    options = ImportOptions(vocab, precision, activation, overrides or (), overwrite)
    if system:
        result = import_system(source, out, options, log)
        rows = [(part, f"{made['layout']}, {_dtypes(made)}") for part, made in result["parts"].items()]
        rows += [("sample", f'dalle sample "..." --recipe {out}')] if result["recipes"] else []
    else:
        result = import_weights(source, out, options, log)
        shown = {**result, "dtypes": _dtypes(result), "model": f"{result['model']['type']}: dalle show {out}"}
        rows = [(key, value) for key, value in shown.items() if value is not None]
    print_result(result, align(rows), as_json)


def _dtypes(result: dict) -> str:
    return ", ".join(f"{count} {dtype}" for dtype, count in result["dtypes"].items())


@command(
    MANAGE,
    "dalle export checkpoints/clip-starter --out clip.safetensors",
    "dalle export checkpoints/vit-b32 --format hf-clip --out vit-b32-hf",
)
def export(
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT", help="Checkpoint: file, run or starter; for diffusers-unclip a system."),
    ],
    out: Annotated[str, typer.Option(metavar="PATH", help="File; a folder for hf-clip, open-clip, diffusers-*.")],
    layout: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="dalle, openai-clip, open-clip, hf-clip, openai-dvae, ...; for a whole unCLIP diffusers-unclip.",
        ),
    ] = "dalle",
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Store as fp16, bf16 or float32. Default: fp16; in other formats the dtypes of the weights.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Export a checkpoint as one small file, or in a published layout that other programs open."""
    from .. import console
    from ..convert import diffusers_pipeline
    from ..convert.exporting import export as write

    if layout == diffusers_pipeline.FORMAT:
        files = diffusers_pipeline.export(checkpoint, out, precision, overwrite)
    else:
        files = write(checkpoint, layout, out, precision, overwrite)
    written = {"precision": precision or "fp16"} if layout == "dalle" else {"format": layout, "files": files}
    console.print_result({"path": out, **written}, [out], False)
