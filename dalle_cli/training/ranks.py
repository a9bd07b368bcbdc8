"""What the processes of a run share: the Accelerator that lays them out, agreements and averages among them."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.tracking import filter_trackers
from accelerate.utils import AutocastKwargs
from PIL import Image
from torch import Tensor

from .. import distributed
from ..exits import USAGE, Failure
from .trackers import Tracker


def accelerator(precision: str, tracker: Tracker, run: Path, say: Any, sharded: bool = False) -> Accelerator:
    """Accelerate's layout of this process, with the trackers that start. Raises Failure for a layout not as asked.

    sharded: whether weights are gathered block by block; autocast must then not keep its copy of each to the end.
    `accelerate launch --cpu` is known to start one process where several were asked for; that must not pass unseen.
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
        except Exception as error:  # whatever it may be, a run does not stop for want of a tracker
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            say(f"tracker {name} is left out: {reason}; pip install 'dalle[{name}]' if it is missing")
    layout.trackers = trackers
    return layout


def show(picture: Image.Image, step: int, layout: Accelerator) -> None:
    """Send a sheet of pictures to the trackers beside the log."""
    for tracker in layout.trackers:
        more = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
        tracker.log_images({"samples": np.asarray(picture)[None]}, step=step, **more)  # type: ignore[attr-defined]


def agree(values: Sequence[float], layout: Accelerator) -> list[float]:
    """The greatest of each value over the processes."""
    if layout.num_processes == 1:
        return list(values)
    shared = torch.tensor(list(values), dtype=torch.float64, device=layout.device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return shared.tolist()


def collect(values: list[str], layout: Accelerator) -> list[str]:
    """The values of all processes, in the order of ranks."""
    if layout.num_processes == 1:
        return values
    everyones: Any = [None] * layout.num_processes
    dist.all_gather_object(everyones, values)
    return list(itertools.chain(*everyones))


def mean(totals: dict[str, Tensor], count: float, layout: Accelerator) -> dict[str, float]:
    """Totals over `count` items each, averaged over the processes."""
    if not totals:
        return {}
    stacked = torch.stack([value.float().reshape(()) for value in totals.values()]) / count
    if layout.num_processes > 1:
        dist.all_reduce(stacked, dist.ReduceOp.SUM)
        stacked /= layout.num_processes
    return {name: float(f"{value:.6g}") for name, value in zip(totals, stacked.tolist())}
