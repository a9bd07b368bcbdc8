"""Train, sample and evaluate OpenAI's line of text-to-image models: DALL-E 1, CLIP, GLIDE and unCLIP.

From Python: `load` a trained model, `load_system` to generate images, `fit` to train. Importing this package imports
nothing else: torch is imported when one of these functions is called.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, which takes time to import
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from .systems.loading import LoadedSystem
    from .tasks.base import Task

__version__ = "0.2.0"
__all__ = ["__version__", "fit", "load", "load_system"]


def load(name: str, device: str = "cpu") -> Task:
    """Load a trained model, in evaluation mode and float32.

    name: a checkpoint file, a run under checkpoints/ or its folder, or a model that ships with the package:
    `starter/dvae`, `starter/clip`, `starter/dalle`, `starter/decoder`, `starter/upsampler`, `starter/prior`,
    `starter/noised-clip`. device: of torch, such as "cuda".

    What it can do depends on the model. A CLIP has `embed_texts(texts)` and `embed_images(images)`, images being
    (B, 3, size, size) in [-1, 1]; both return unit vectors, (B, embed_dim). The network itself is `.model`, the
    tokenizer `.tokenizer`. Raises CheckpointError.
    """
    from . import checkpoint

    task: Any = checkpoint.load(name)
    return task.to(device)


def load_system(
    name: str = "dalle1", *, precision: str = "auto", offload: bool = False, **options: Any
) -> LoadedSystem:
    """Load a system to generate images, on the GPU if there is one.

    name: a system recipe (`dalle1`, `glide`, `unclip`; `dalle recipes systems` lists them), its file or folder, or a
    checkpoint that generates images. precision: "auto", "float32", "bf16" or "fp16"; auto is bf16 if the hardware
    multiplies it fast. offload: keep one model at a time on the device. options: sampling options that replace the
    recipe's, such as `temperature`, `guidance_scale` or `steps`; `dalle show systems/NAME --explain` lists them.

    `load_system("glide").generate(["a tiger automobile"], seeds=[[0, 1]])` returns a list of PIL images per prompt,
    here one of two images: those of `dalle sample --seed 0` and `--seed 1`. Raises RecipeError, CheckpointError,
    Failure.
    """
    from .systems import loading

    return loading.load_system(name, precision=precision, offload=offload, **options)


def fit(
    recipe: str | Mapping[str, Any],
    run: str | Path,
    overrides: Sequence[str] = (),
    resume: str = "auto",
    max_time: str | None = None,
    quiet: bool = False,
) -> Path:
    """Train a recipe, as `dalle train-...` does, and return the checkpoint's file.

    recipe: `family/name` (`clip/tiny`), a YAML file in a folder named after the family, or the recipe itself as a
    mapping. run: the folder of the run; a name without a slash is a folder under checkpoints/. overrides: words such as
    `train.steps=100`. resume: "auto" continues an interrupted run, "no" starts again, "force" continues with a changed
    recipe. max_time: save and stop after this time, such as "3h50m"; the same call then continues.

    Raises RecipeError, DataError, CheckpointError, and Failure when training stops before the last step.
    """
    from pathlib import Path

    from . import checkpoint
    from . import recipe as recipes
    from .exits import USAGE, Failure
    from .training import loop, options

    if isinstance(recipe, str):
        located = recipes.locate(recipe)
        if located is None:
            raise recipes.RecipeError(f"no recipe '{recipe}'{recipes.suggest(recipe, recipes.all_names())}")
        family, name = located
        if family in recipes.SECTIONS:
            raise Failure(f"{recipe}: only recipes of models can be trained, such as clip/tiny", USAGE)
        resolved = recipes.load(name, family, overrides, checkpoint.accepted_arguments)
    else:
        resolved = recipes.from_mapping(recipe, overrides, checkpoint.accepted_arguments)
    folder = Path(run) if "/" in str(run) else Path("checkpoints") / run
    if code := loop.fit(options.check(resolved), folder, resume, max_time, quiet):
        raise Failure(f"{folder}: stopped early, state saved; call fit again to continue", code)
    return folder / checkpoint.FILE
