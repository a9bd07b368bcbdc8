"""`dalle train-FAMILY`: one command per family of recipes."""

from pathlib import Path
from typing import Annotated

import typer

from ..exits import DONE
from .app import TRAIN, command
from .options import OUTPUT, Overrides, Quiet

FAMILIES = {  # family: default recipe, summary, example
    "dvae": ("starter", "Train a discrete VAE: images to a grid of image tokens and back.", "--recipe tiny"),
    "clip": ("starter", "Train CLIP: images and texts in one embedding space.", "--recipe tiny data.path=photos"),
    "prior": (
        "dalle1-starter",
        "Train a prior: DALL-E 1's transformer over image tokens, or unCLIP's over CLIP embeddings.",
        "--recipe dalle1-tiny",
    ),
    "decoder": (
        "glide-starter",
        "Train a diffusion decoder, from texts or CLIP embeddings to images, or an upsampler.",
        "--recipe glide-tiny",
    ),
    "classifier": ("tiny", "Train a classifier of noisy images, for classifier guidance.", "--recipe tiny"),
}


def _add_command(family: str, default: str, summary: str, example: str) -> None:
    def train(
        overrides: Overrides = None,
        recipe: Annotated[
            str, typer.Option(metavar="NAME|PATH", help=f"Recipe: `dalle recipes {family}` lists them.")
        ] = default,
        run: Annotated[
            str | None, typer.Option(metavar="NAME", help=f"Folder under checkpoints/. Default: {family}-RECIPE.")
        ] = None,
        resume: Annotated[
            str,
            typer.Option(
                metavar="MODE",
                help="auto: continue an interrupted run; no: start anew; force: continue with a changed recipe.",
            ),
        ] = "auto",
        processes: Annotated[int, typer.Option(metavar="N", min=1, help="Processes, one per GPU.")] = 1,
        max_time: Annotated[
            str | None, typer.Option(metavar="TIME", help="Save and stop after this time, such as 3h50m.")
        ] = None,
        dry_run: Annotated[
            bool,
            typer.Option(
                "--dry-run", help="Print recipe, parameters and memory, and train nothing.", rich_help_panel=OUTPUT
            ),
        ] = False,
        ignore_memory: Annotated[
            bool, typer.Option("--ignore-memory", help="Train although the estimate exceeds the free memory.")
        ] = False,
        quiet: Quiet = False,
    ) -> None:
        from ..training import start

        code = start.train(
            family, recipe, overrides or [], run, resume=resume, processes=processes, max_time=max_time,
            dry_run=dry_run, quiet=quiet, ignore_memory=ignore_memory,
        )  # fmt: skip
        if code == DONE and family == "prior" and not dry_run:
            _write_system_file(start.run_folder(family, recipe, run), quiet)
        raise typer.Exit(code)

    train.__doc__ = f"{summary}\n\n`dalle show {family}/{default} --explain` lists the keys that KEY=VALUE can change."
    examples = (
        f"dalle train-{family} {example}",
        f"dalle train-{family} --recipe {default} train.steps=1000 --dry-run",
    )
    command(TRAIN, *examples, name=f"train-{family}")(train)


def _write_system_file(run: Path, quiet: bool) -> None:
    """Make the trained prior a system that `dalle sample --recipe RUN` uses, and say with which other parts."""
    from .. import distributed
    from ..console import log
    from ..systems.system_file import write_system_file

    if distributed.rank() or not (written := write_system_file(run)):
        return
    path, system = written
    others = ", ".join(
        f"{part} {source}" for part, source in system["parts"].items() if not str(source).startswith("./")
    )
    if not quiet:
        log(f'{path}: {others}; generate images by: dalle sample "..." --recipe {run.name}')


for _family, _details in FAMILIES.items():
    _add_command(_family, *_details)
