"""What the commands on latents share: images are encoded as (z, x), and changed latents are decoded to image files.

z is the CLIP embedding of an image, and x (x_T in the paper) the noise from which the decoder, conditioned on z, comes
back to the image (Ramesh et al. 2022, section 3). Shapes: e the width of an embedding, s the size of the decoder's
images in pixels, S that of the system with its upsamplers.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from .. import console, distributed, images
from ..console import Progress
from ..exits import DONE
from ..registry import RecipeError
from ..systems.loading import system_class
from .image_requests import group_by_request
from .metadata import Origin, digest
from .options import GenerationOptions, print_dry_run
from .outputs import Collected, Outputs, Results
from .requests import GenerationRequest, PlannedImage
from .sheets import check_sheet

INVERSION_ITERS = 3  # fixed-point iterations of each inversion step
NOTED_ASPECT = 1.02  # longer side over shorter side from which cropping is mentioned

DEFAULT_RECIPE = "unclip"

Crop = Literal["center", "pad"]


@dataclass(frozen=True)
class LatentOptions(GenerationOptions):
    """The options of commands on latents. crop: to the middle square (center), or none, with white borders (pad)."""

    crop: Crop = "center"


@dataclass(frozen=True)
class Latent:
    """An image (3, s, s) with its embedding z (e,), and its noise x (3, s, s) if it was inverted."""

    image: Tensor
    z: Tensor
    x: Tensor | None = None


@dataclass(frozen=True)
class DecodeRequest:
    """One image to decode, from z (e,) or from the text only, and from x (3, s, s) or the noise of its own seed.

    text: the caption that the decoder reads. original: the image (3, s, s) that the PSNR refers to. measure: from the
    embedding of the decoded image to fields of its result. details: more fields. image: an image to save as it is, of
    embedding z. error: the reason why there is no image.
    """

    item: PlannedImage
    z: Tensor | None = None
    x: Tensor | None = None
    eta: float = 0.0
    text: str = ""
    original: Tensor | None = None
    measure: Callable[[Tensor], dict[str, Any]] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    image: Image.Image | None = None
    error: str | None = None


Decoded = tuple[Image.Image, dict[str, Any]]
"""A decoded image, and what was measured on it."""


class LatentEditor:
    """A system that encodes and decodes latents, with checked options; its models are loaded by `run`.

    inverts: the command needs the noise x of images; needs_prior: it samples embeddings of texts.
    Raises RecipeError.
    """

    def __init__(self, command: str, options: LatentOptions, inverts: bool = True, needs_prior: bool = False):
        self.command, self.options, self.needs_prior = command, options, needs_prior
        name = options.recipe or DEFAULT_RECIPE
        if not system_class(name).has_latents:
            raise RecipeError(f"{name}: a system without CLIP image embeddings; `{command}` needs one of type unclip")
        resolved = options.resolve(DEFAULT_RECIPE)
        if needs_prior and not resolved.parts.get("prior"):
            raise RecipeError(f"parts.prior: `{command}` samples embeddings of texts, and {name} names no prior")
        # DDIM inversion with guidance does not lead back to the noise.
        unguided = {"guidance_scale": 1.0} if inverts and options.sampling.get("guidance_scale") is None else {}
        self.resolved = resolved.with_options(sampler="ddim", **unguided)
        self.sampling = self.resolved.options
        self.system: Any = None
        self.results_by_index: dict[int, dict[str, Any]] = {}

    def check_options(self, **changes: Any) -> Any:
        """Return the options with some of them changed. Raises RecipeError for invalid values."""
        return replace(self.sampling, **changes)

    def run(
        self,
        items: Sequence[PlannedImage],
        make_requests: Callable[[list[PlannedImage]], Iterable[DecodeRequest]],
        settings: dict[str, Any],
        results: Collected | None = None,
        columns: Sequence[str] = (),
        failed: Iterable[GenerationRequest] = (),
    ) -> int | None:
        """Decode and save the images that do not exist yet; returns the exit code of a dry run, else None.

        make_requests: from the images to generate to their requests in the same order, called when the system is
        loaded. settings: what the metadata of an image holds besides the options. failed: requests of earlier commands
        to pass on. The caller finishes `results`. Raises Failure, CheckpointError.
        """
        options = self.options
        if options.dry_run:
            print_dry_run(self.resolved, f"{len(items)} files in {options.out}")
            return DONE
        if options.sheet:
            check_sheet(options.sheet, options.may_replace)
        outputs = Outputs(options.out, items, options.overwrite, options.skip_existing)
        columns = ("index", "seed", "skipped", *columns, "similarity", "psnr", "path", "prompt")
        self.results = results or Results(options.json, columns)
        waiting = {result["index"]: result for result in outputs.skipped}
        if outputs.todo:
            self.system = self.resolved.load(self.resolved.choose_device(options.precision, options.offload))
            self._note_cropped(outputs.todo)
        origin = self._origin(settings)
        progress = Progress(self.command, len(outputs.todo), quiet=options.quiet)
        due = deque(item.index for item in items)
        requests = make_requests(outputs.todo) if outputs.todo else ()
        for group in _groups(requests, 4 * self.batch_size * distributed.world_size()):
            for request, decoded in zip(group, self._decode(group)):
                if decoded is None:
                    result = outputs.failed(request.item, request.error or "")
                else:
                    image, measures = decoded
                    result = outputs.save(request.item, image, origin, **request.details, **measures)
                waiting[request.item.index] = result
                progress.advance()
            while due and due[0] in waiting:
                self._report(waiting.pop(due.popleft()))
        for index in due:
            self._report(waiting.pop(index))
        progress.close()
        for request in failed:
            self.results.report(request.line)
        distributed.barrier()  # sheets are made of the files
        return None

    @property
    def batch_size(self) -> int:
        return self.options.batch_size or self.resolved.cls.default_batch_size

    def _origin(self, settings: dict[str, Any]) -> Origin:
        files = self.system.checkpoints(self.sampling, self.needs_prior) if self.system else {}
        recorded = {**asdict(self.sampling), **settings}
        if self.options.crop != "center":
            recorded["crop"] = self.options.crop
        return Origin(self.command, self.resolved.name, recorded, {name: digest(path) for name, path in files.items()})

    def _report(self, result: dict[str, Any]) -> None:
        self.results_by_index[result["index"]] = result
        self.results.report(result)

    def _note_cropped(self, items: Iterable[PlannedImage]) -> None:
        """Say once that images which are not square lose their borders, and how to keep all of them."""
        if self.options.crop != "center" or self.options.quiet or distributed.rank():
            return
        cropped = []
        for path in dict.fromkeys(item.request.fields.get("image") for item in items):
            try:
                size = images.image_size(path) if path else (1, 1)
            except images.BadImage:
                continue
            if max(size) > NOTED_ASPECT * min(size):
                cropped.append(f"{path} of {size[0]}x{size[1]} px")
        if cropped:
            more = f" and {len(cropped) - 1} more" if len(cropped) > 1 else ""
            verb = "are" if more else "is"
            console.log(
                f"{cropped[0]}{more} {verb} cropped to the middle square; --crop pad keeps all of an image, on white"
            )

    # ---- images to latents ---------------------------------------------------------------------------------------

    def encode_files(self, paths: Sequence[str], invert: bool = True) -> Iterator[Latent | images.BadImage]:
        """Yield the latents of image files, in order and encoded in batches, or the error of a file."""
        step = self.batch_size * distributed.world_size()
        for start in range(0, len(paths), step):
            yield from distributed.distributed_map(
                paths[start : start + step], lambda batch: self._encode_batch(batch, invert)
            )

    def _encode_batch(self, paths: Sequence[str], invert: bool) -> list[Latent | images.BadImage]:
        latents: list[Latent | images.BadImage] = []
        for path in paths:
            try:
                latents.append(self.encode(images.open_image(path)))
            except images.BadImage as error:
                latents.append(error)
        good = [latent for latent in latents if isinstance(latent, Latent)]
        if invert and good:
            noise = self.invert(
                torch.stack([latent.image for latent in good]), torch.stack([latent.z for latent in good])
            )
            inverted = iter([replace(latent, x=x) for latent, x in zip(good, noise)])
            latents = [next(inverted) if isinstance(latent, Latent) else latent for latent in latents]
        return latents

    def latents_by_request(
        self, items: Sequence[PlannedImage], per_request: int
    ) -> Iterator[tuple[list[PlannedImage], Latent | images.BadImage]]:
        """Yield the latent of each request's image, with its planned images, `per_request` of which were planned."""
        groups = group_by_request(items, per_request)
        yield from zip(groups, self.encode_files([group[0].request.fields["image"] for group in groups]))

    def encode(self, image: Image.Image) -> Latent:
        """Return the latent of an image of any shape, without its noise; it is cropped or padded to a square."""
        if self.options.crop == "pad":
            image = images.pad_to_square(image)
        z = self.embed_images(images.to_tensor(images.square(image, self.system.clip.model.visual.size))[None])
        return Latent(images.to_tensor(images.square(image, self.system.decoder.size)), z[0])

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Return the embeddings of square images, (B, 3, H, H) to (B, e), on the CPU."""
        return self.system.embed_images(pixels).float().cpu()

    def invert(self, pixels: Tensor, z: Tensor) -> Tensor:
        """Return the noise of images (B, 3, s, s) under their embeddings, on the CPU."""
        sampling = self.sampling
        return self.system.invert(
            pixels, z, [""] * len(pixels), sampling.steps, sampling.guidance_scale, INVERSION_ITERS,
            sampling.guidance_interval,
        ).float().cpu()  # fmt: skip

    def sample_prior(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Return the prior's embeddings of texts, (B, e), on the CPU."""
        return self.system.sample_embeddings(texts, seeds, self.sampling).float().cpu()

    # ---- latents to images ---------------------------------------------------------------------------------------

    def _decode(self, requests: Sequence[DecodeRequest]) -> list[Decoded | None]:
        """Return the images of requests, None for those with an error; equal kinds are decoded in batches."""
        decoded: list[Decoded | None] = [None] * len(requests)
        for i, request in enumerate(requests):
            if request.image and request.z is not None:
                decoded[i] = request.image, request.measure(request.z) if request.measure else {}
        kinds = [(request.eta, request.z is None, request.x is None) for request in requests]
        step = self.batch_size * distributed.world_size()
        for kind in dict.fromkeys(kinds):
            indices = [
                i for i, request in enumerate(requests) if kinds[i] == kind and not (request.error or request.image)
            ]
            for start in range(0, len(indices), step):
                batch = indices[start : start + step]
                outputs = distributed.distributed_map([requests[i] for i in batch], self._decode_batch)
                for i, output in zip(batch, outputs):
                    decoded[i] = output
        return decoded

    def _decode_batch(self, requests: list[DecodeRequest]) -> Iterator[Decoded]:
        system = self.system
        seeds, texts = [request.item.noise_seed for request in requests], [request.text for request in requests]
        z = [request.z for request in requests if request.z is not None]
        x = [request.x for request in requests if request.x is not None]
        noise = system.noise(seeds)
        random_x = noise(system.blank(len(requests)))
        eta = requests[0].eta
        pixels = system.decode(
            torch.stack(z) if z else None, texts, torch.stack(x) if x else random_x, replace(self.sampling, eta=eta),
            noise, exact=bool(x) and not eta,
        )  # fmt: skip
        pixels = pixels.float().clamp(-1, 1)
        embeddings = self.embed_images(pixels)
        large = system.upsample(pixels, seeds, self.sampling).float().cpu().clamp(-1, 1)
        for request, small, image, embedding in zip(requests, pixels.cpu(), large, embeddings):
            measures = request.measure(embedding) if request.measure else {}
            if request.original is not None:
                measures["psnr"] = round(images.psnr(small, request.original), 2)
            yield images.to_pil(image), measures


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine similarity of two embeddings, rounded as results show it."""
    return round(torch.cosine_similarity(a, b, dim=0).item(), 4)


def similarity_to(z: Tensor) -> Callable[[Tensor], dict[str, Any]]:
    """Return a measure of how similar an embedding is to z."""
    return lambda embedding: {"similarity": cosine(embedding, z)}


def _groups(requests: Iterable[DecodeRequest], size: int) -> Iterator[list[DecodeRequest]]:
    group: list[DecodeRequest] = []
    for request in requests:
        group.append(request)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
