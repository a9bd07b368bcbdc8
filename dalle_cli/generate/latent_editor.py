"""What the commands on latents share: pictures become (z, x), and points of that space pictures again, as files.

z is the CLIP embedding of a picture, x the noise from which the decoder, told z, comes back to it (Ramesh et al. 2022,
section 3). Shapes: `e` numbers of an embedding, `s` pixels of the decoder, S of the system with its upsamplers.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .. import distributed, images
from ..console import Progress
from ..exits import BAD_INPUT, DONE, Failure
from ..registry import RecipeError
from ..systems import device, systems
from .metadata import MetadataError, Origin, digest, read
from .outputs import Collected, Outputs, Results
from .requests import GenerationRequest, PlannedImage
from .sample import describe, load_system, prepare
from .sheets import check_sheet

INVERSION_ITERS = 3  # times that a step of the inversion is solved anew, with the noise expected at its end


@dataclass(frozen=True)
class Job:
    """What the command line asks of every command on latents. options: the system's, None where not given."""

    recipe: str = "unclip"
    options: dict[str, Any] | None = None
    seed: int | None = None
    out: str = "out"
    sheet: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    batch_size: int | None = None
    precision: str = "auto"
    offload: bool = False
    as_json: bool = False
    dry_run: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Latent:
    """A picture (3, s, s) and its parts: z (e,), and x (3, s, s) where it was asked for."""

    picture: Tensor
    z: Tensor
    x: Tensor | None = None


@dataclass(frozen=True)
class DecodeRequest:
    """One picture to draw: of z (e,), or of the text alone; from x (3, s, s), or else from noise of its own.

    text: the caption that the decoder reads. original: the picture (3, s, s) that it is held against; measure: what its
    own embedding says of it; details: what else its result says. ready: a picture that needs no drawing, of embedding
    z. error: why it cannot be drawn.
    """

    item: PlannedImage
    z: Tensor | None = None
    x: Tensor | None = None
    eta: float = 0.0
    text: str = ""
    original: Tensor | None = None
    measure: Callable[[Tensor], dict[str, Any]] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    ready: Image.Image | None = None
    error: str | None = None


class LatentEditor:
    """A system with latents, its options and its files, all checked; its models are loaded when it runs.

    inverts: whether it finds the noise of pictures; imagines: whether it makes embeddings of texts by its prior.
    Raises RecipeError, and Failure for files that are in the way.
    """

    def __init__(self, command: str, job: Job, inverts: bool = True, imagines: bool = False):
        self.command, self.job, self.imagines = command, job, imagines
        self.recipe = load_system(job.recipe)
        given = {key: value for key, value in (job.options or {}).items() if value is not None}
        self.part, self.parts, self.options = prepare(self.recipe, given)
        if not hasattr(self.part, "invert"):
            raise RecipeError(f"{job.recipe}: a system without CLIP embeddings; `{command}` needs one of type unclip")
        if imagines and not self.parts.get("prior"):
            raise RecipeError(f"parts.prior: `{command}` draws from words by a prior, and {job.recipe} names none")
        own = (
            {"guidance_scale": 1.0} if inverts and "guidance_scale" not in given else {}
        )  # guidance does not lead back to the noise
        self.options = replace(self.options, sampler="ddim", **own)
        self.parts.pop("reranker", None)
        self.system: Any = None
        self.results_by_index: dict[int, dict[str, Any]] = {}

    def checked(self, **changes: Any) -> Any:
        """The options with some changed. Raises RecipeError for what they may not be."""
        return replace(self.options, **changes)

    def run(
        self,
        items: Sequence[PlannedImage],
        shots: Callable[[list[PlannedImage]], Iterable[DecodeRequest]],
        settings: dict[str, Any],
        results: Collected | None = None,
        columns: Sequence[str] = (),
        failed: Iterable[GenerationRequest] = (),
    ) -> int | None:
        """Draw what is not there yet; returns the exit code of a dry run, else None, and the caller finishes `results`.

        shots: of the items to draw, in their order, asked for when the system is loaded. settings: what a picture says
        of how it was made, beside the options. failed: lines of earlier commands to pass on.
        """
        job = self.job
        if job.dry_run:
            describe(job.recipe, self.recipe, self.options, f"{len(items)} files in {job.out}")
            return DONE
        if job.sheet:
            check_sheet(job.sheet, job.overwrite or job.skip_existing)
        outputs = Outputs(job.out, items, job.overwrite, job.skip_existing)
        self.results = results or Results(
            job.as_json, ("index", "seed", "skipped", *columns, "similarity", "psnr", "path", "prompt")
        )
        waiting = {result["index"]: result for result in outputs.skipped}
        if outputs.todo:
            self.system = systems.build(
                self.recipe["system"], "system", device=device.choose(job.precision, job.offload), **self.parts
            )
        files = self.system.files(self.options, self.imagines) if self.system else {}
        origin = Origin(
            self.command, job.recipe, {**asdict(self.options), **settings}, {k: digest(v) for k, v in files.items()}
        )
        progress = Progress(self.command, len(outputs.todo), quiet=job.quiet)
        due = deque(item.index for item in items)
        for group in _grouped(
            shots(outputs.todo) if outputs.todo else (), 4 * self.batch_size * distributed.world_size()
        ):
            for shot, drawn in zip(group, self._draw(group)):
                if drawn is None:
                    waiting[shot.item.index] = outputs.failed(shot.item, shot.error or "")
                else:
                    picture, details = drawn
                    waiting[shot.item.index] = outputs.save(shot.item, picture, origin, **shot.details, **details)
                progress.advance()
            while due and due[0] in waiting:
                self._report(waiting.pop(due.popleft()))
        for index in due:
            self._report(waiting.pop(index))
        progress.close()
        for one in failed:
            self.results.report(one.line)
        distributed.barrier()  # sheets are made of the files
        return None

    @property
    def batch_size(self) -> int:
        return self.job.batch_size or self.part.together

    def _report(self, result: dict[str, Any]) -> None:
        self.results_by_index[result["index"]] = result
        self.results.report(result)

    # ---- pictures to latents -------------------------------------------------------------------------------------

    def encode_files(self, paths: Sequence[str], invert: bool = True) -> Iterator[Latent | images.BadImage]:
        """The latents of picture files, in order, some worked on together; of bad ones, why."""
        many = self.batch_size * distributed.world_size()
        for start in range(0, len(paths), many):
            yield from distributed.distributed_map(
                paths[start : start + many], lambda own: self._encode_files(own, invert)
            )

    def _encode_files(self, paths: Sequence[str], invert: bool) -> list[Latent | images.BadImage]:
        found: list[Latent | images.BadImage] = []
        for path in paths:
            try:
                picture = images.open_image(path)
                found.append(self.encode(picture))
            except images.BadImage as error:
                found.append(error)
        good = [one for one in found if isinstance(one, Latent)]
        if invert and good:
            x = self.invert(torch.stack([one.picture for one in good]), torch.stack([one.z for one in good]))
            rest = iter([replace(one, x=own) for one, own in zip(good, x)])
            found = [next(rest) if isinstance(one, Latent) else one for one in found]
        return found

    def latents_by_request(
        self, items: Sequence[PlannedImage], many: int
    ) -> Iterator[tuple[list[PlannedImage], Latent | images.BadImage]]:
        """The latent of each request's picture, with the items to draw of it; `many` were planned of each request."""
        groups = group_by_request(items, many)
        yield from zip(groups, self.encode_files([own[0].request.fields["image"] for own in groups]))

    def encode(self, picture: Image.Image) -> Latent:
        """A picture of any shape: its middle square at the decoder's size, and its embedding."""
        z = self.embed_images(images.to_tensor(images.square(picture, self.system.clip.model.visual.size))[None])
        return Latent(images.to_tensor(images.square(picture, self.system.decoder.size)), z[0])

    def embed_images(self, pictures: Tensor) -> Tensor:
        """Embeddings of square pictures, (B, 3, H, H) to (B, e), on the CPU."""
        return self.system.embed_images(pictures).float().cpu()

    def invert(self, pictures: Tensor, z: Tensor) -> Tensor:
        """The noise of pictures (B, 3, s, s) under embeddings, on the CPU."""
        options = self.options
        found = self.system.invert(
            pictures,
            z,
            [""] * len(pictures),
            options.steps,
            options.guidance_scale,
            INVERSION_ITERS,
            options.guidance_interval,
        )
        return found.float().cpu()

    def sample_prior(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """The prior's embeddings of texts, (B, e), on the CPU."""
        return self.system.imagine(texts, seeds, self.options).float().cpu()

    # ---- latents to pictures -------------------------------------------------------------------------------------

    def _draw(self, shots: Sequence[DecodeRequest]) -> list[tuple[Image.Image, dict[str, Any]] | None]:
        """The pictures of shots and what is measured of them; those that are drawn alike are drawn together."""
        drawn: list[tuple[Image.Image, dict[str, Any]] | None] = [None] * len(shots)
        for i, shot in enumerate(shots):
            if shot.ready and shot.z is not None:
                drawn[i] = shot.ready, shot.measure(shot.z) if shot.measure else {}
        kinds = [(shot.eta, shot.z is None, shot.x is None) for shot in shots]
        for kind in dict.fromkeys(kinds):
            places = [i for i, own in enumerate(kinds) if own == kind and not (shots[i].error or shots[i].ready)]
            many = self.batch_size * distributed.world_size()
            for start in range(0, len(places), many):
                some = places[start : start + many]
                for i, result in zip(some, distributed.distributed_map([shots[i] for i in some], self._decode_batch)):
                    drawn[i] = result
        return drawn

    def _decode_batch(self, shots: list[DecodeRequest]) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
        system, seeds, texts = self.system, [shot.item.noise_seed for shot in shots], [shot.text for shot in shots]
        z = [shot.z for shot in shots if shot.z is not None]
        x = [shot.x for shot in shots if shot.x is not None]
        fresh = system.noise(seeds)
        own = fresh(system.blank(len(shots)))
        eta = shots[0].eta
        pictures = system.decode(
            torch.stack(z) if z else None, texts, torch.stack(x) if x else own, replace(self.options, eta=eta), fresh,
            exact=bool(x) and not eta,
        )  # fmt: skip
        pictures = pictures.float().clamp(-1, 1)
        seen = self.embed_images(pictures)
        large = system.enlarge(pictures, seeds, self.options).float().cpu().clamp(-1, 1)
        for shot, small, picture, found in zip(shots, pictures.cpu(), large, seen):
            details = shot.measure(found) if shot.measure else {}
            if shot.original is not None:
                details["psnr"] = round(images.psnr(small, shot.original), 2)
            yield images.to_pil(picture), details


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two embeddings, as results say it."""
    return round(torch.cosine_similarity(a, b, dim=0).item(), 4)


def similarity_to(z: Tensor) -> Callable[[Tensor], dict[str, Any]]:
    """Measures how near an embedding is to z."""
    return lambda own: {"similarity": cosine(own, z)}


def group_by_request(items: Sequence[PlannedImage], many: int) -> list[list[PlannedImage]]:
    """Items in groups of one request each; `many` were planned of each request."""
    found: dict[int, list[PlannedImage]] = {}
    for item in items:
        found.setdefault(item.index // many, []).append(item)
    return list(found.values())


def require_readable(asked: Sequence[GenerationRequest]) -> list[GenerationRequest]:
    """The requests that did not fail before. Raises BadImage when not one of their pictures can be read."""
    requests = [one for one in asked if not one.failed]
    worst = None
    for one in requests:
        try:
            images.open_image(one.fields["image"])
            return requests
        except images.BadImage as error:
            worst = worst or error
    if worst:
        raise worst
    if not requests:
        raise Failure("every line says that its picture could not be drawn: there is nothing to work on", BAD_INPUT)
    return requests


def caption_of(request: GenerationRequest) -> str | None:
    """What a picture shows: by its line, else by its file as dalle wrote it, else None."""
    if request.prompt is not None:
        return request.prompt
    try:
        found = read(request.fields["image"]).get("dalle", {}).get("prompt")
    except MetadataError:
        return None
    return found if isinstance(found, str) else None


def _grouped(shots: Iterable[DecodeRequest], most: int) -> Iterator[list[DecodeRequest]]:
    group: list[DecodeRequest] = []
    for shot in shots:
        group.append(shot)
        if len(group) == most:
            yield group
            group = []
    if group:
        yield group
