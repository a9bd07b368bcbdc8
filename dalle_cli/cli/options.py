"""Arguments and options that several commands share, each defined once."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

INPUT, MODEL, SAMPLING, OUTPUT, COMPUTE = "Input", "Model", "Sampling", "Output", "Compute"
DALLE1, DIFFUSION, UNCLIP = "DALL-E 1", "GLIDE and unCLIP", "unCLIP"  # panels of options that only these systems take
HARDWARE = "Hardware of the estimate"

MAX_SEED = 2**64 - 1


def numbers(kind: type, low: float, high: float) -> Callable[[Any], list]:
    """Return a parser of numbers between two bounds, separated by commas, for an option or an argument."""

    def parse(text: Any) -> list:
        try:
            values = text if isinstance(text, list) else [kind(part) for part in str(text).split(",")]
            if all(low <= value <= high for value in values):
                return values
        except ValueError:
            pass
        unit = "integers" if kind is int else "numbers"
        raise typer.BadParameter(f"'{text}': expected {unit} from {low:g} to {high:g}, separated by commas")

    return parse


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if text.isdecimal() and int(text):
        return int(text)
    raise typer.BadParameter(f"'{text}': expected auto or a positive integer")


def _relaunch(processes: int) -> int:
    """Run the command line in several processes and exit with their code; does nothing in one of them."""
    from ..launch import relaunch

    if processes > 1 and (code := relaunch(processes)) is not None:
        raise typer.Exit(code)
    return processes


def _seed(text: str) -> int:
    if str(text).isdecimal() and int(text) <= MAX_SEED:
        return int(text)
    raise typer.BadParameter(f"'{text}': expected an integer from 0 to 2^64 - 1")


# ---- input ---------------------------------------------------------------------------------------------------------

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change, such as train.steps=1000."),
]
DataArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH] [KEY=VALUE]...",
        help="A folder, tar shards or a table; data.* keys as in a recipe. Default: the environment's DALLE_DATA.",
    ),
]
PromptWords = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PROMPT]...", help="One prompt per argument (quote it); - reads standard input."),
]
Prompts = Annotated[
    str | None,
    typer.Option("--prompts", metavar="FILE", help="Prompts, one per line, or JSON lines.", rich_help_panel=INPUT),
]
Images = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE...", help="Image files or folders; - reads JSON lines from standard input."),
]
Objects = Annotated[
    str,
    typer.Option("--objects", help="Objects of the scenes: shapes, everyday, words or emoji.", rich_help_panel=INPUT),
]

# ---- model ---------------------------------------------------------------------------------------------------------

Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe", metavar="NAME|PATH", help="System recipe, or a checkpoint that generates images.",
        rich_help_panel=MODEL,
    ),
]  # fmt: skip
DiffusionRecipe = Annotated[
    str,
    typer.Option(
        "--recipe", metavar="NAME|PATH", help="System recipe, or the checkpoint of a decoder.", rich_help_panel=MODEL
    ),
]
UnclipRecipe = Annotated[
    str,
    typer.Option("--recipe", metavar="NAME|PATH", help="System recipe of type unclip.", rich_help_panel=MODEL),
]
Model = Annotated[
    str,
    typer.Option("--model", metavar="NAME|PATH", help="Checkpoint: file, run or starter.", rich_help_panel=MODEL),
]
Family = Annotated[
    str | None,
    typer.Option("--family", help="Family of the recipe, if its name does not say it: dvae, clip, prior, ..."),
]

# ---- sampling ------------------------------------------------------------------------------------------------------

NumImages = Annotated[
    int,
    typer.Option(
        "-n",
        "--num-images",
        metavar="N",
        min=1,
        max=1_000_000,
        help="Images per prompt or input.",
        rich_help_panel=SAMPLING,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        parser=_seed,
        metavar="N",
        help="Seed of the first image, 0 to 2^64 - 1. Default: 0.",
        rich_help_panel=SAMPLING,
    ),
]
GuidanceScale = Annotated[
    float | None,
    typer.Option(
        "--guidance-scale", metavar="X", rich_help_panel=SAMPLING,
        help="Scale of the guidance; 1 turns classifier-free guidance off. Default: the recipe's.",
    ),
]  # fmt: skip
GuidanceInterval = Annotated[
    str | None,
    typer.Option(
        "--guidance-interval", metavar="LOW,HIGH", help="Guide only at these of the 1,000 timesteps, such as 400,999.",
        rich_help_panel=DIFFUSION,
    ),
]  # fmt: skip
Steps = Annotated[
    str | None,
    typer.Option(
        "--steps", metavar="N|NAME", rich_help_panel=DIFFUSION,
        help="Diffusion steps: a number (27), or a schedule (ddim25, fast27). Default: the recipe's.",
    ),
]  # fmt: skip
Sampler = Annotated[
    str | None,
    typer.Option(
        "--sampler", metavar="NAME", rich_help_panel=DIFFUSION,
        help="Diffusion sampler, such as ddim or dpm++. Default: the recipe's.",
    ),
]  # fmt: skip
DynamicThreshold = Annotated[
    float | None,
    typer.Option(
        "--dynamic-threshold", help="Percentile of dynamic thresholding, such as 0.995.", rich_help_panel=DIFFUSION
    ),
]

# ---- output --------------------------------------------------------------------------------------------------------

Out = Annotated[str, typer.Option("--out", metavar="FOLDER", help="Folder of the images.", rich_help_panel=OUTPUT)]
Sheet = Annotated[
    str | None,
    typer.Option("--sheet", metavar="FILE.png", help="Write a contact sheet as well.", rich_help_panel=OUTPUT),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON lines on a terminal, as in a pipe.", rich_help_panel=OUTPUT),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.", rich_help_panel=OUTPUT)]
SkipExisting = Annotated[
    bool,
    typer.Option("--skip-existing", help="Keep existing images and generate the rest.", rich_help_panel=OUTPUT),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print what would be done and write nothing.", rich_help_panel=OUTPUT),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Hide progress.", rich_help_panel=OUTPUT)]

# ---- compute -------------------------------------------------------------------------------------------------------

BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", parser=_batch_size, metavar="N|auto", help="Images per batch; auto fits the free memory.",
        show_default="auto", rich_help_panel=COMPUTE,
    ),
]  # fmt: skip
Precision = Annotated[
    str,
    typer.Option("--precision", metavar="TYPE", help="auto, float32, bf16 or fp16.", rich_help_panel=COMPUTE),
]
Offload = Annotated[
    bool,
    typer.Option(
        "--offload", help="Keep one model at a time on the device: less memory, slower.", rich_help_panel=COMPUTE
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        "--processes", metavar="N", min=1, callback=_relaunch, rich_help_panel=COMPUTE,
        help="Share the work among N processes, one per GPU; the files are the same.",
    ),
]  # fmt: skip
