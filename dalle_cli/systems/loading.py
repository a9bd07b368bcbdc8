"""From the name of a recipe or checkpoint to a system: resolved and checked first, loaded when it is needed."""

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from .. import checkpoint, images, recipe
from ..exits import USAGE, Failure
from ..registry import RecipeError, bind, convert, suggest
from ..tasks.decoder import DIFFUSION_MODELS
from . import device, memory, systems
from .scorer import Scorer
from .seeds import noise_seed
from .system import System

RERANKER = "reranker"  # the part that is no argument of any system: CLIPs that choose among candidates
DALLE1_RECIPE = "dalle1"  # the recipe whose other parts complete the checkpoint of a transformer


@dataclass(frozen=True)
class ResolvedSystem:
    """A system with its parts and options, all checked and nothing loaded. Made once per command by `resolve`.

    name: as the user gave it. reranker: checkpoints of CLIP, none if the recipe names none. reranker_source: where
    they come from, for messages.
    """

    name: str
    recipe: recipe.Recipe
    cls: type[System]
    parts: dict[str, Any]
    options: Any
    reranker: tuple[str, ...] = ()
    reranker_source: str = ""
    unknown_options: tuple[str, ...] = field(default=())

    def with_options(self, **changes: Any) -> "ResolvedSystem":
        """Return this system with some options changed. Raises RecipeError for invalid values."""
        return replace(self, options=replace(self.options, **changes))

    def with_parts(self, *names: str) -> "ResolvedSystem":
        """Return this system with only these of its parts, for uses that need no others."""
        return replace(self, parts={name: source for name, source in self.parts.items() if name in names})

    def choose_device(self, precision: str = "auto", offload: bool = False) -> device.Device:
        """Return the device to load this system on. Raises Failure for --offload of a system that has one model."""
        if offload and not self.cls.supports_offload:
            raise Failure(f"--offload: {self.name} consists of one model; it is for GLIDE and unCLIP", USAGE)
        return device.choose(precision, offload)

    def load(self, place: device.Device) -> Any:
        """Return the system, loaded on a device."""
        return systems.build(self.recipe["system"], "system", device=place, **self.parts)

    def load_reranker(self, place: device.Device) -> Scorer:
        """Return the scorer that reranks candidates. Raises RecipeError if there is none."""
        self.require_reranker()
        return Scorer(place, self.reranker)

    def require_reranker(self) -> None:
        """Raise RecipeError if the recipe names no reranker."""
        if not self.reranker:
            raise RecipeError(
                f"{self.name}: --rerank needs a CLIP: name one with --reranker, or as parts.{RERANKER} of the recipe"
            )

    def summary(self) -> list[str]:
        """Return what a dry run says: the parts' files and the options. Raises CheckpointError for missing files."""
        lines = [f"system: {self.name}"]
        for part, source in self._sources():
            path = checkpoint.resolve(source)
            lines.append(f"  {part}: {path} ({path.stat().st_size / 1e6:.1f} MB)")
        return [*lines, f"  {', '.join(f'{key} {value}' for key, value in asdict(self.options).items())}"]

    def _sources(self) -> list[tuple[str, str]]:
        parts = [(name, str(source)) for name, source in self.parts.items() if source]
        return parts + [(RERANKER, source) for source in self.reranker]


def resolve(
    name: str,
    options: Mapping[str, Any] | None = None,
    reranker: str | Sequence[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> ResolvedSystem:
    """Return the system of a recipe, a folder or a checkpoint, checked before anything is loaded.

    options: sampling options that replace the recipe's, None where not given. reranker: CLIP checkpoints in place of
    the recipe's. defaults: options that yield to `options` and replace the recipe's; those that this system does not
    have are left out and listed as `unknown_options`. Raises RecipeError, CheckpointError.
    """
    resolved = resolve_recipe(system_recipe(name), name, options, reranker, defaults)
    borrowed = reranker is None and not recipe.of_folder(name) and not _names_recipe(name)
    return replace(resolved, reranker_source=f"recipe {DALLE1_RECIPE}") if borrowed else resolved


def resolve_recipe(
    system: recipe.Recipe,
    name: str = "recipe",
    options: Mapping[str, Any] | None = None,
    reranker: str | Sequence[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> ResolvedSystem:
    """Return the system of a recipe that is already read; see `resolve`."""
    parts = dict(recipe.section(system, "parts"))
    cls: Any
    cls, _ = systems.bind(system.get("system"), "system", ("device", *parts))
    accepted = {*inspect.signature(cls).parameters, RERANKER} - {"device"}
    for key in parts:
        if key not in accepted:
            raise RecipeError(f"parts.{key}: the system takes no '{key}'{suggest(key, accepted)}")
    source = parts.pop(RERANKER, None)
    source = convert(source, str | list[str] | None, f"parts.{RERANKER}")
    given = {key: value for key, value in (options or {}).items() if value is not None}
    known = inspect.signature(cls.options_type).parameters
    inherited = {key: value for key, value in (defaults or {}).items() if key in known}
    merged = {**recipe.section(system, "sample"), **inherited, **given}
    bound = cls.options_type(**bind(cls.options_type, merged, "sample"))
    cls.check(bound, parts)
    chosen = source if reranker is None else reranker
    return ResolvedSystem(
        name=name,
        recipe=system,
        cls=cls,
        parts=parts,
        options=bound,
        reranker=(chosen,) if isinstance(chosen, str) else tuple(chosen or ()),
        reranker_source="--reranker" if reranker is not None else f"parts.{RERANKER} of {name}",
        unknown_options=tuple(key for key in defaults or {} if key not in known),
    )


def system_class(name: str) -> type[System]:
    """Return the class of a system, whose flags say what it can do. Raises RecipeError, CheckpointError."""
    system = system_recipe(name)
    cls: Any
    cls, _ = systems.bind(system.get("system"), "system", ("device", *recipe.section(system, "parts")))
    return cls


def system_recipe(name: str) -> recipe.Recipe:
    """Return a system's recipe: of a recipe's name or path, of a folder, or made for a checkpoint that generates.

    Raises RecipeError, CheckpointError.
    """
    if file := recipe.of_folder(name):
        return recipe.resolve_parts(recipe.load(str(file), "systems"), file.parent)
    if not _names_recipe(name):
        try:
            path = checkpoint.resolve(name)
        except checkpoint.CheckpointError:
            if "/" in name:
                raise
            return recipe.load(name, "systems")  # whose error lists the names
        return _recipe_of_checkpoint(path)
    system = recipe.load(name, "systems")
    return recipe.resolve_parts(system, Path(name).parent) if os.path.isfile(name) else system


def _names_recipe(name: str) -> bool:
    return Path(name).suffix in (".yaml", ".yml") or name in recipe.names("systems")


def _recipe_of_checkpoint(path: Path) -> recipe.Recipe:
    """Return the system that a decoder is by itself, or a transformer with the other parts of DALLE1_RECIPE."""
    trained = checkpoint.metadata(path)["recipe"]
    kind = recipe.type_of(trained, "model")
    if kind in DIFFUSION_MODELS:
        guidable = recipe.section(trained, "task").get("text_drop_prob")  # trained without captions too
        sample = {} if guidable else {"sample": {"guidance_scale": 1.0}}
        return {"system": {"type": "glide"}, "parts": {"decoder": str(path)}, **sample}
    if kind != "dalle":
        raise RecipeError(f"{path} holds a '{kind}', which generates no images by itself; give a system recipe")
    parts = {**recipe.load(DALLE1_RECIPE, "systems")["parts"], "transformer": str(path)}
    return {"system": {"type": "dalle1"}, "parts": parts}


class LoadedSystem:
    """A loaded system for use from Python: generates PIL images with the options of its recipe."""

    def __init__(self, resolved: ResolvedSystem, place: device.Device):
        self.resolved = resolved
        self.system: System = resolved.load(place)

    @property
    def size(self) -> int:
        """The side of the images in pixels."""
        return self.system.size

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[Sequence[int]] | None = None,
        *,
        num_images: int = 1,
        seed: int = 0,
        batch_size: int | None = None,
        **options: Any,
    ) -> list[list[Image.Image]]:
        """Return images of prompts, a list per prompt: those of `dalle sample` with the same seeds and options.

        seeds: a seed per image of each prompt; image s is that of `dalle sample --seed s`. Without, `num_images` per
        prompt are those of `dalle sample --seed SEED -n NUM_IMAGES`. options: sampling options that replace the
        recipe's. Raises RecipeError for invalid options.
        """
        if isinstance(prompts, str):
            raise TypeError("prompts: expected a list of texts, not a single text")
        chosen = self.resolved.with_options(**bind(self.resolved.cls.options_type, options, "sample")).options
        if seeds is None:
            rows = [
                [noise_seed(seed, number * num_images + i) for i in range(num_images)] for number in range(len(prompts))
            ]
        else:
            rows = [[noise_seed(own) for own in row] for row in seeds]
        if len(rows) != len(prompts) or not all(rows):
            raise ValueError(f"{len(rows)} lists of seeds for {len(prompts)} prompts: give one per prompt, none empty")
        images_of_prompts: list[list[Image.Image]] = []
        start = 0
        while start < len(prompts):
            count = len(rows[start])
            same = next((i for i in range(start, len(rows)) if len(rows[i]) != count), len(rows))
            group, batch = memory.plan_batch(self.system, chosen, same - start, count)
            end = min(start + max(1, group), same)
            batch_images = self.system.generate(prompts[start:end], rows[start:end], chosen, batch_size or batch)
            images_of_prompts += [[images.to_pil(image) for image in row] for row in batch_images]
            start = end
        return images_of_prompts


def load_system(
    name: str = DALLE1_RECIPE, *, precision: str = "auto", offload: bool = False, **options: Any
) -> LoadedSystem:
    """Load a system by the name or path of its recipe, its folder, or a checkpoint, for use from Python.

    precision: auto, float32, bf16 or fp16. options: sampling options that replace the recipe's. Raises RecipeError,
    CheckpointError, Failure.
    """
    resolved = resolve(name, options)
    return LoadedSystem(resolved, resolved.choose_device(precision, offload))
