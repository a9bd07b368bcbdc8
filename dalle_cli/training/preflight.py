"""What is checked before any work: sizes that must match, memory, and how a batch relates to the data."""

import os
from typing import Any

from .. import checkpoint
from ..data.loader import Data
from ..exits import Failure
from ..hardware.capabilities import free_memory
from ..recipe import Recipe, section
from ..registry import RecipeError
from . import estimate
from .options import Train, options
from .precision import choose

WITHOUT_IMAGES = ("image-tokens", "embeddings")  # types of data whose `size` means nothing
MANY_EPOCHS = 500
DONE_BY_LAUNCHER = "DALLE_PREFLIGHT_DONE"  # set in the processes that a checked command starts


def check_sizes(recipe: Recipe) -> None:
    """Raise RecipeError when images of `data.size` do not fit the model, naming the key to change."""
    data, model, task = (section(recipe, name) for name in ("data", "model", "task"))
    size = data.get("size")
    if not isinstance(size, int) or data.get("type") in WITHOUT_IMAGES:
        return
    clip = section(recipe, "frozen").get("clip")  # reads images that may be larger than those of the decoder
    for key, wanted in _image_sizes(model, task).items():
        if wanted != size and not (clip and key == "task.size" and size > wanted):
            raise RecipeError(
                f"data.size: images of {size} px for a model of {wanted} px ({key}): set data.size={wanted}, "
                f"or {key}={size}"
            )
    codec = section(recipe, "frozen").get("dvae")
    if model.get("type") == "dalle" and codec and (path := checkpoint.find_checkpoint(str(codec))):
        groups = section(checkpoint.metadata(path)["recipe"], "model").get("groups", 4)
        side = model["grid_size"] * 2 ** (int(groups) - 1)
        if side != size:
            raise RecipeError(
                f"data.size: images of {size} px for a transformer of {model['grid_size']}x{model['grid_size']} image "
                f"tokens of {codec}, which are {side} px: set data.size={side}, or model.grid_size for another size"
            )


def _image_sizes(model: dict, task: dict) -> dict[str, Any]:
    """Return the keys of a recipe that say how large its images are, with their values."""
    sizes = {"task.size": task.get("size")}
    if model.get("type") in ("clip", "noised-clip"):
        sizes["model.image.size"] = section(model, "image").get("size")
    if model.get("type") == "classifier":
        sizes["model.size"] = model.get("size")
    return {key: value for key, value in sizes.items() if isinstance(value, int)}


def check_batch(data: Data, settings: Train) -> None:
    """Raise RecipeError when a batch is larger than the training data."""
    if settings.batch_size > data.samples:
        held_out = f" ({data.held_out} more are held out for validation)" if data.held_out else ""
        raise RecipeError(
            f"train.batch_size: {settings.batch_size} exceeds the {data.samples} training samples{held_out}: set "
            f"train.batch_size={max(1, data.samples // 2)} or less"
        )


def epochs_warning(data: Data, settings: Train) -> str | None:
    """Return a warning about an absurd number of epochs, or None."""
    epochs = settings.steps * settings.batch_size / data.samples
    if epochs <= MANY_EPOCHS:
        return None
    steps = max(1, 100 * data.samples // settings.batch_size)
    return (
        f"warning: {epochs:,.0f} epochs: the model will memorize the {data.samples} training samples; "
        f"train.steps={steps} makes 100 epochs"
    )


def check_memory(meta: Any, recipe: Recipe, processes: int, device: str) -> dict[str, int]:
    """Return the estimated bytes of one process by part. Raises Failure when this machine has less memory free.

    meta: the task on the meta device; it cannot be used afterwards. On CPUs all processes share the memory.
    """
    settings = options(recipe)[1]
    parts, step = per_process(meta, recipe, processes, device)
    sharing = processes if device == "cpu" else 1
    needed, free = parts["total"] * sharing, free_memory(device)
    if needed > free:
        fitting = _fitting(parts, step, free // sharing)
        raise Failure(
            f"training needs about {_gib(needed)} of memory, and {_gib(free)} are free: "
            f"{_remedy(settings, processes, fitting)}; --ignore-memory trains all the same"
        )
    return parts


def per_process(meta: Any, recipe: Recipe, processes: int, device: str) -> tuple[dict[str, int], estimate.Step]:
    """Return the estimated bytes of one process by part, with `total`, and the step that was measured."""
    optim, settings, _ = options(recipe)
    precision = {"no": "float32"}.get(chosen := choose(settings.precision), chosen)
    samples = estimate.samples_per_process(settings, processes)
    (step,) = estimate.measure(meta, samples, recipe["data"]["size"], precision, device)
    if settings.fsdp and processes > 1:
        return estimate.sharded(meta, optim, step, processes, precision, device), step
    return estimate.device_memory(meta, optim, step, processes, device), step


def _fitting(parts: dict[str, int], step: estimate.Step, free: int) -> int:
    """Return about how many samples a process can work on at once; 0 when not even one fits."""
    moving = parts.get("step", parts.get("activations", 0))
    return max(0, int((free - parts["total"] + moving) * step.samples // max(moving, 1)))


def _remedy(settings: Train, processes: int, fitting: int) -> str:
    for parts in range(settings.grad_accum_steps, settings.batch_size + 1):
        each, rest = divmod(settings.batch_size, processes * parts)
        if not rest and 0 < each <= fitting:
            return f"set train.grad_accum_steps={parts} (batches in parts of {each}), or a smaller train.batch_size"
    return "lower train.batch_size" if fitting else "even one sample at a time does not fit; train a smaller model"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def is_done() -> bool:
    """Return whether the command that started this process has checked the memory."""
    return DONE_BY_LAUNCHER in os.environ
