"""`dalle train-*`: one function and a line for each family."""

from pathlib import Path
from typing import Annotated

import typer

from ..exits import DONE
from .app import TRAIN, command
from .options import Overrides

FAMILIES = {  # family: its default recipe, and what the command says of itself
    "dvae": ("starter", "Train a discrete VAE: pictures to a grid of codes and back."),
    "clip": ("starter", "Train CLIP: pictures and texts in one space."),
    "prior": ("dalle1-starter", "Train a prior: DALL-E 1's over image codes, or unCLIP's over CLIP embeddings."),
    "decoder": (
        "glide-starter",
        "Train a decoder: diffusion from texts or CLIP embeddings to pictures, or an upsampler.",
    ),
    "classifier": ("tiny", "Train a classifier of noisy pictures, which guides a decoder."),
}


def _command(family: str, default: str, summary: str) -> None:
    def train(
        overrides: Overrides = None,
        recipe: Annotated[str, typer.Option(help="Name or file of a recipe.")] = default,
        run: Annotated[str | None, typer.Option(help="Folder under checkpoints/. Default: FAMILY-RECIPE.")] = None,
        resume: Annotated[str, typer.Option(help="auto, no, or changed: go on though the recipe differs.")] = "auto",
        processes: Annotated[int, typer.Option(min=1, help="Processes to train with.")] = 1,
        max_time: Annotated[str | None, typer.Option(help="Stop in good order after a time such as 3h50m.")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done; write nothing.")] = False,
        quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
    ) -> None:
        from ..training import start

        code = start.train(
            family, recipe, overrides or [], run, resume=resume, processes=processes, max_time=max_time,
            dry_run=dry_run, quiet=quiet,
        )  # fmt: skip
        if code == DONE and family == "prior" and not dry_run:
            _write_system_file(start.run_folder(family, recipe, run), quiet)
        raise typer.Exit(code)

    train.__doc__ = summary
    command(TRAIN, name=f"train-{family}")(train)


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


for _family, (_default, _summary) in FAMILIES.items():
    _command(_family, _default, _summary)
