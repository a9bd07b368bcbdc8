"""Which saved state a run goes on from, and whether it may."""

import json
from collections.abc import Callable
from pathlib import Path

from .. import checkpoint
from ..exits import USAGE, WOULD_OVERWRITE, Failure
from ..recipe import differences
from . import state

# Keys that may differ from the saved state's: they change how a run is watched, not what it computes. Companions may
# lie elsewhere, but they are compared by their contents.
FREE = (
    "train.log_every", "train.save_every", "train.keep_last", "train.preview_images", "train.validate_every",
    "train.max_skipped_steps", "train.fsdp", "tracker", "data.num_workers", "frozen",
)  # fmt: skip
CHOICES = ("auto", "no", "changed")


def resumable(run: Path, recipe: dict, resume: str, say: Callable[[str], None]) -> Path | None:
    """The state to go on from, or None for a fresh run.

    resume: "auto" takes the newest whole state when its recipe is this one; "changed" takes it whatever its recipe;
    "no" starts afresh and wants a folder without states. Raises Failure, with the differences or the cause.
    """
    if resume not in CHOICES:
        raise Failure(f"--resume {resume}: choose one of {', '.join(CHOICES)}", USAGE)
    found, damaged = state.newest(run)
    for line in damaged:
        say(f"{line}; passed over")
    if found is None:
        if damaged:
            raise Failure(f"{run}/resume holds no whole state; remove the folder to start afresh")
        if (run / checkpoint.FILE).exists():
            raise Failure(f"{run} holds a model and no state to go on from; choose another --run", WOULD_OVERWRITE)
        return None
    if resume == "no":
        raise Failure(f"{run} holds a run; choose another --run, or remove it", WOULD_OVERWRITE)
    about = checkpoint.metadata(found)
    changed = [line for line in differences(about["recipe"], recipe) if not line.startswith(FREE)]
    before, now = json.loads(about.get("extra", "{}")).get("frozen", {}), companions(recipe)
    changed += [f"frozen.{name}: another checkpoint" for name in now if before.get(name, now[name]) != now[name]]
    if changed and resume == "auto":
        shown = "; ".join(changed[:6])
        raise Failure(
            f"{run} holds a run with another recipe ({shown}); choose another --run, or go on with --resume changed",
            WOULD_OVERWRITE,
        )
    for line in changed:
        say(f"changed since the saved state: {line}")
    return found


def companions(recipe: dict) -> dict[str, str]:
    """The checksum of each frozen companion, by name."""
    return {
        name: checkpoint.metadata(checkpoint.resolve(str(place)))["crc32"]
        for name, place in (recipe.get("frozen") or {}).items()
    }
