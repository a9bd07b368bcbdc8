"""Requests of commands that work on image files: folders are expanded, and captions found in the files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from .. import images
from ..exits import BAD_INPUT, Failure
from .embed import MANIFEST
from .metadata import MetadataError, read
from .requests import GenerationRequest, PlannedImage, read_requests


def read_image_requests(words: Sequence[str], field: Literal["image", "path"] = "image") -> list[GenerationRequest]:
    """Return a request for each image of files, folders and JSON lines; `-` is standard input.

    field: what a word is, `image` to generate from or `path` to judge. Raises Failure, PromptError.
    """
    return read_requests(expand_folders(words), plain_field=field, file_fields=(field,))


def expand_folders(words: Sequence[str]) -> list[str]:
    """Replace folders by the image files in them and below, sorted; leave other words as they are. Raises Failure."""
    paths: list[str] = []
    for word in words:
        if not os.path.isdir(word):  # a long JSON line is not a file name, and Path would raise
            paths.append(word)
            continue
        files = sorted(str(path) for path in Path(word).rglob("*") if path.suffix.lower() in images.EXTENSIONS)
        if not files:
            raise Failure(_no_images(Path(word)), BAD_INPUT)
        paths += files
    return paths


def _no_images(folder: Path) -> str:
    if (folder / MANIFEST).is_file():
        return (
            f"{folder}: a folder of CLIP embeddings, as `dalle embed` writes it, has no images: "
            "give the folder of the images that were embedded"
        )
    return f"{folder}: no images in this folder ({', '.join(sorted(images.EXTENSIONS))})"


def readable_requests(requests: Sequence[GenerationRequest]) -> list[GenerationRequest]:
    """Return the requests that have not failed before. Raises BadImage where none of their images can be read."""
    usable = [request for request in requests if not request.failed]
    if not usable:
        raise Failure("every line carries the error of an earlier command: there is no image to work on", BAD_INPUT)
    first_error = None
    for request in usable:
        try:
            images.open_image(request.fields["image"])
            return usable
        except images.BadImage as error:
            first_error = first_error or error
    assert first_error
    raise first_error


def caption_of(request: GenerationRequest) -> str | None:
    """Return the caption of an image: of its line, or of the metadata that dalle wrote to its file, or None."""
    if request.prompt is not None:
        return request.prompt
    try:
        prompt = read(request.fields["image"]).get("dalle", {}).get("prompt")
    except MetadataError:
        return None
    return prompt if isinstance(prompt, str) else None


def group_by_request(planned: Sequence[PlannedImage], per_request: int) -> list[list[PlannedImage]]:
    """Group images by their request, of which each was planned `per_request` times."""
    groups: dict[int, list[PlannedImage]] = {}
    for image in planned:
        groups.setdefault(image.index // per_request, []).append(image)
    return list(groups.values())
