"""The contract of a system: what all systems do, and flags for what only some of them can do."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from ..tasks.decoder import KnownRegion
from .device import Device
from .memory_needs import MemoryNeeds

OnImages = Callable[[int], Any]
"""A progress callback: called with the number of images that have been finished since the last call."""

OnStep = Callable[[int, Tensor], Any]
"""A progress callback of diffusion: called with each timestep and the x0 predicted there, (B, 3, S, S)."""

KnownAtSize = Callable[[int], KnownRegion]
"""From a size in pixels to the known region of every image: pixels (1, 3, S, S) and mask (1, 1, S, S), 1 for known."""


class System(Protocol):
    """Generates images from prompts. A subclass sets the flags of what it can do, and implements those methods.

    Its constructor takes `device` and the name of a checkpoint for each part; parts and their defaults are its
    signature. Callers ask the flags, never the class.
    """

    # ---- flags ---------------------------------------------------------------------------------------------------

    options_type: ClassVar[type]
    """The dataclass of the sampling options, which is the schema of a recipe's `sample` section."""

    default_batch_size: ClassVar[int]
    """Images generated at once unless --batch-size says otherwise."""

    supports_image_prefix: ClassVar[bool] = False
    """Can complete an image from its upper rows: implements `encode_image_prefix`."""

    supports_inpainting: ClassVar[bool] = False
    """`generate` takes a known region."""

    supports_upscaling: ClassVar[bool] = False
    """Its upsampler can be used without the rest of it."""

    supports_offload: ClassVar[bool] = False
    """Consists of several large models, which can be on the device one at a time."""

    shows_denoising: ClassVar[bool] = False
    """`generate` reports each step of the diffusion to `on_step`."""

    estimates_memory: ClassVar[bool] = False
    """Implements `memory_needs`, by which batches fit the free memory."""

    has_latents: ClassVar[bool] = False
    """Encodes images as CLIP embedding and noise, and decodes them: what vary, interpolate and edit need."""

    needs_reranking: ClassVar[bool] = False
    """Its samples vary so much that it is evaluated as the best of many too, as its paper does."""

    # ---- every system --------------------------------------------------------------------------------------------

    device: Device
    size: int
    """Side of the images in pixels."""

    @staticmethod
    def check(options: Any, parts: Mapping[str, Any]) -> None:
        """Check options against parts before anything is loaded. Raises RecipeError, CheckpointError."""

    def checkpoints(self, options: Any) -> dict[str, Path]:
        """Return the checkpoint files that `generate` uses with these options, by part."""
        raise NotImplementedError

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[Sequence[int]],
        options: Any,
        batch_size: int,
        on_images: OnImages | None = None,
        *,
        image_prefix: Tensor | None = None,
        on_step: OnStep | None = None,
        known_region: KnownAtSize | None = None,
    ) -> Tensor:
        """Return images, (prompts, candidates, 3, S, S) in [-1, 1], on the CPU.

        seeds: one generator seed per candidate of each prompt, the same number for all prompts. batch_size: images
        generated at once. The keyword arguments are only for systems whose flags say so.
        """
        raise NotImplementedError

    # ---- behind flags --------------------------------------------------------------------------------------------

    def encode_image_prefix(self, image: str | Path, rows: int) -> Tensor:
        """Return the image tokens of the upper `rows` rows of an image file."""
        raise NotImplementedError

    def memory_needs(self, options: Any) -> MemoryNeeds:
        """Return the memory that `generate` takes, by the number of prompts and candidates."""
        raise NotImplementedError
