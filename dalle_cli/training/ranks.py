"""The Accelerator of a run: devices, processes, precision, and the trackers that report to it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import filter_trackers
from accelerate.utils import AutocastKwargs
from PIL import Image

from .. import distributed
from ..exits import USAGE, Failure
from .trackers import Tracker


def accelerator(precision: str, tracker: Tracker, run: Path, say: Any, sharded: bool = False) -> Accelerator:
    """Return Accelerate's layout of this process, with the trackers that start.

    sharded: whether weights are gathered block by block; autocast must then not keep its copy of each to the end.
    Raises Failure when fewer processes start than were asked for, as `accelerate launch --cpu` is known to do.
    """
    asked = distributed.world_size()
    layout = Accelerator(
        mixed_precision=precision, cpu=not torch.cuda.is_available(), project_dir=str(run),
        kwargs_handlers=[AutocastKwargs(cache_enabled=not sharded)],
    )  # fmt: skip
    if layout.num_processes != asked:
        raise Failure(f"{asked} processes were asked for and {layout.num_processes} started; use --processes", USAGE)
    trackers = []
    for name in tracker.report_to:
        try:
            layout.trackers, layout.log_with = [], filter_trackers([name], run)
            if not layout.log_with:
                raise ImportError("not installed")
            layout.init_trackers(tracker.project, init_kwargs={"wandb": {"dir": str(run), "name": run.name}})
            trackers += layout.trackers
        except Exception as error:  # of any kind: a run does not stop for a missing tracker
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            say(f"tracker {name} is skipped: {reason}; pip install 'dalle[{name}]' if it is missing")
    layout.trackers = trackers
    return layout


def log_image(image: Image.Image, step: int, layout: Accelerator) -> None:
    """Send a sheet of samples to the trackers."""
    for tracker in layout.trackers:
        more = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
        tracker.log_images({"samples": np.asarray(image)[None]}, step=step, **more)  # type: ignore[attr-defined]
