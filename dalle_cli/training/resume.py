"""The saved state that a run resumes from, if it may."""

import json
from collections.abc import Callable
from pathlib import Path

from .. import checkpoint
from ..exits import USAGE, WOULD_OVERWRITE, Failure
from ..recipe import differences
from . import state

# Keys that may differ from the saved state's: they change how a run is reported, not what it computes. Frozen
# checkpoints may have moved; they are compared by their contents.
FREE = (
    "train.log_every", "train.save_every", "train.keep_last", "train.preview_images", "train.validate_every",
    "train.max_skipped_steps", "train.fsdp", "tracker", "data.num_workers", "frozen",
)  # fmt: skip
CHOICES = ("auto", "no", "force")


def resumable(run: Path, recipe: dict, resume: str, say: Callable[[str], None]) -> Path | None:
    """Return the state to resume from, or None for a new run.

    resume: "auto" takes the newest whole state when its recipe is this one; "force" takes it whatever its recipe;
    "no" starts a new run and needs a folder without states. Raises Failure, with the differences or the cause.
    """
    if resume not in CHOICES:
        raise Failure(f"--resume {resume}: choose one of {', '.join(CHOICES)}", USAGE)
    found, damaged = state.newest(run)
    for line in damaged:
        say(f"{line}; skipped")
    if found is None:
        if damaged:
            raise Failure(f"{run}/resume holds no undamaged state; remove the folder to start again")
        if (run / checkpoint.FILE).exists():
            raise Failure(f"{run} holds a model and no state to resume from; choose another --run", WOULD_OVERWRITE)
        return None
    if resume == "no":
        raise Failure(f"{run} holds a run; choose another --run, or remove it", WOULD_OVERWRITE)
    about = checkpoint.metadata(found)
    changed = [line for line in differences(about["recipe"], recipe) if not line.startswith(FREE)]
    before, now = json.loads(about.get("extra", "{}")).get("frozen", {}), frozen_checksums(recipe)
    changed += [f"frozen.{name}: its checkpoint changed" for name in now if before.get(name, now[name]) != now[name]]
    if changed and resume == "auto":
        shown = "; ".join(changed[:6])
        raise Failure(
            f"{run} holds a run with another recipe ({shown}); choose another --run, or continue with --resume force",
            WOULD_OVERWRITE,
        )
    for line in changed:
        say(f"changed since the saved state: {line}")
    return found


def frozen_checksums(recipe: dict) -> dict[str, str]:
    """Return the checksum of each frozen checkpoint, by name."""
    return {
        name: checkpoint.metadata(checkpoint.resolve(str(path)))["crc32"]
        for name, path in (recipe.get("frozen") or {}).items()
    }
