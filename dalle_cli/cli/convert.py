"""Commands that carry weights over: import, export."""

from typing import Annotated

import typer

from ..console import log
from .app import MANAGE, command
from .options import Json, Overwrite


@command(
    MANAGE,
    "dalle import ViT-B-32.pt --out checkpoints/vit-b32 --vocab bpe_simple_vocab_16e6.txt.gz",
    "dalle import dvae/ --out checkpoints/openai-dvae",
    "dalle import hf:kakaobrain/karlo-v1-alpha --system --out checkpoints/karlo",
    name="import",
)
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A file of published weights, a folder, or hf:owner/name[@revision][:file] of the Hugging Face hub."
        ),
    ],
    out: Annotated[str, typer.Option(help="Folder for the checkpoint, or a file ending in .safetensors.")],
    vocab: Annotated[
        str | None, typer.Option(help="The vocabulary's file or folder. Default: beside the weights, or installed.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float16, bf16 or float32. Default: as the weights are.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="Of a CLIP, where nothing beside it tells: quick-gelu or gelu.")
    ] = None,
    system: Annotated[
        bool, typer.Option("--system", help="All models of the folder (Karlo, GLIDE), and the recipe that draws.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a checkpoint of published weights, recognised by their keys; nothing in the file is run."""
    from ..console import align, print_result
    from ..convert.importing import import_ as carry
    from ..convert.systems import import_system

    if system:
        if activation:
            raise typer.BadParameter("--activation is of one CLIP, not of a system")
        made = import_system(source, out, vocab, precision, overwrite, log)
        rows = [(part, f"{told['layout']}, {told['types']}") for part, told in made["parts"].items()]
        print_result(
            made,
            align([*rows, *(("draw", f'dalle sample "..." --recipe {out}') for _ in made["recipes"][:1])]),
            as_json,
        )
        return
    result = carry(source, out, vocab, precision, activation, overwrite, log)
    shown = {key: value for key, value in result.items() if value is not None and key != "model"}
    print_result(result, align([*shown.items(), ("model", f"{result['model']['type']}: dalle show {out}")]), as_json)


@command(
    MANAGE,
    "dalle export checkpoints/clip-starter --out clip.safetensors",
    "dalle export checkpoints/vit-b32 --format hf-clip --out vit-b32-hf",
)
def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's file, run folder or name.")],
    out: Annotated[str, typer.Option(help="File to write; a folder for hf-clip, open_clip and diffusers.")],
    layout: Annotated[
        str,
        typer.Option(
            "--format", help="dalle, openai-clip, open-clip, hf-clip, openai-dvae, ...; of a system diffusers-unclip."
        ),
    ] = "dalle",
    precision: Annotated[
        str | None,
        typer.Option(help="float16, bf16 or float32. Default: float16; in another format, as the weights are."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a checkpoint as one small file of ours, or in a published layout."""
    from .. import console
    from ..convert import diffusers_pipeline as pipeline
    from ..convert.exporting import export as write

    if layout == pipeline.FORMAT:
        files = pipeline.export(checkpoint, out, precision, overwrite)
    else:
        files = write(checkpoint, layout, out, precision, overwrite)
    told = {"precision": precision or "float16"} if layout == "dalle" else {"format": layout, "files": files}
    console.print_result({"path": out, **told}, [out], False)
