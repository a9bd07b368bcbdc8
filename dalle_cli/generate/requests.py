"""Generation requests: read from the command line, a file or standard input, and planned as images with seeds.

A line is a prompt (or, for commands that work on images, the path of one); a line that starts with `{` is a JSON object
of fields. The results of one command are requests of the next, which is what makes pipes work.
"""

import io
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from .. import distributed
from ..systems.seeds import noise_seed

MAX_LINE_BYTES = 1 << 18  # a prompt together with an embedding or the image tokens of an image
MAX_PROMPT_LENGTH = 10_000  # characters; no text encoder reads a tenth of it
MAX_REQUESTS = 1_000_000
MAX_IMAGES = 10_000_000  # per run, candidates included
MAX_JSON_DEPTH = 32

# Fields of a result that describe its own image, and do not hold for an image generated from it.
RESULT_FIELDS = frozenset(["index", "sample_index", "path", "score", "skipped", "error"])

TEXT_SUFFIXES = (".txt", ".jsonl", ".json", ".csv")  # of files that a user may give in place of prompts

PlainField = Literal["prompt", "image", "path"]


class PromptError(ValueError):
    """A request that cannot be used; the message is one line that names its source."""


@dataclass(frozen=True)
class GenerationRequest:
    """One requested generation. fields: all other fields of its line (`image`, `mask`, `path`, unknown ones)."""

    prompt: str | None = None
    seed: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> dict[str, Any]:
        """The request as it was read; judging commands add their scores to it."""
        named = {"prompt": self.prompt, "seed": self.seed}
        return {**{key: value for key, value in named.items() if value is not None}, **self.fields}

    @property
    def passthrough(self) -> dict[str, Any]:
        """The fields that the result of a new image repeats."""
        return {key: value for key, value in self.fields.items() if key not in RESULT_FIELDS}

    @property
    def failed(self) -> bool:
        """True if an earlier command failed on this request: its line is passed on and nothing is generated."""
        return "error" in self.fields


@dataclass(frozen=True)
class PlannedImage:
    """Image number `index` of a run, generated from sample number `sample_index` of `seed`."""

    index: int
    seed: int
    sample_index: int
    request: GenerationRequest

    @property
    def noise_seed(self) -> int:
        """The 63-bit seed of this image's own random generator."""
        return noise_seed(self.seed, self.sample_index)


def read_requests(
    words: Iterable[str] = (),
    file: str | Path | None = None,
    plain_field: PlainField = "prompt",
    file_fields: Sequence[str] = (),
    stdin: BinaryIO | None = None,
) -> list[GenerationRequest]:
    """Return the requests of words, each read like a line, and of a file; `-` for either is standard input.

    plain_field: the field that a line without `{` holds, and that every request needs: `prompt`, `image` (an image to
    generate from; the `path` of an earlier result counts as one) or `path` (an image to judge). file_fields: fields
    that name files, which must exist; an `image` among them can replace the prompt.

    A bad line becomes a request that failed, unless all lines are bad; a bad word raises at once, and so does input
    that is not text. Without words and file the list is empty; an empty file is an error. Raises PromptError.
    """
    words = [*words, *(["-"] if str(file) == "-" else [])]
    if words.count("-") > 1:
        raise PromptError("standard input can be read only once: give one '-'")
    requests = []
    for word in words:
        if word == "-":
            requests += _read(None, stdin, plain_field, file_fields)
        elif not word.strip():
            raise PromptError(f'command line: an empty {plain_field}; to pass one, give {{"{plain_field}": ""}}')
        else:
            requests.append(_request(word.strip(), "command line", plain_field, file_fields))
    if file is not None and str(file) != "-":
        requests += _read(file, None, plain_field, file_fields)
    return requests


def check_prompt_words(words: Sequence[str]) -> None:
    """Raise PromptError for words on a command line that are probably not meant as prompts.

    A file's name (its prompts are read by --prompts), or a prompt without quotes, which the shell splits into words.
    """
    for word in words:
        if os.path.isfile(word):
            example = f"--reproduce {word}" if word.lower().endswith(".png") else f"--prompts {word}"
            raise PromptError(f"{_show(word, 300)} is a file: give {example}, or quote a prompt of more than one word")
        if word.lower().endswith(TEXT_SUFFIXES) and not any(map(str.isspace, word)):
            raise PromptError(f"no file {_show(word, 300)} (relative to {os.getcwd()}); --prompts FILE reads prompts")
    bare = [word for word in words if word != "-" and not word.startswith("{") and not any(map(str.isspace, word))]
    if len(words) > 1 and len(bare) == len(words):
        joined = " ".join(words)
        raise PromptError(
            f'{len(words)} prompts of one word each: put quotes around a prompt ("{joined}"); for prompts of one word, '
            "give --prompts FILE with one per line"
        )


def plan_images(
    requests: Iterable[GenerationRequest], num_images: int = 1, seed: int | None = None, default_seed: int = 0
) -> list[PlannedImage]:
    """Return `num_images` images per request, in order.

    A `seed` given here holds for all images. Otherwise a request with a seed uses it from its `sample_index` (default
    0) on, so that a result line reproduces its image, and all other requests share `default_seed`. An image depends
    only on its seed, its sample index and its request. Raises PromptError above MAX_IMAGES.
    """
    requests = list(requests)
    if len(requests) * num_images > MAX_IMAGES:
        raise PromptError(
            f"{len(requests)} prompts x {num_images} images exceed the maximum of {MAX_IMAGES} per run; split the run"
        )
    planned: list[PlannedImage] = []
    for request in requests:
        first = request.fields.get("sample_index") or 0
        for i in range(num_images):
            index = len(planned)
            if seed is None and request.seed is not None:
                planned.append(PlannedImage(index, request.seed, first + i, request))
            else:
                planned.append(PlannedImage(index, default_seed if seed is None else seed, index, request))
    return planned


def parse_request(fields: Mapping[str, Any]) -> GenerationRequest:
    """Return the request of a JSON object's fields, with types and sizes checked. Raises PromptError.

    `draw`, the name of `sample_index` in results of version 0.1, is understood.
    """
    if "draw" in fields and "sample_index" not in fields:
        fields = {"sample_index" if key == "draw" else key: value for key, value in fields.items()}
    prompt, seed = fields.get("prompt"), fields.get("seed")
    if prompt is not None and not isinstance(prompt, str):
        raise PromptError(f"'prompt' must be text, not {_show(prompt)}")
    if prompt is not None and len(prompt) > MAX_PROMPT_LENGTH:
        raise PromptError(f"a prompt of {len(prompt)} characters; shorten it to {MAX_PROMPT_LENGTH}")
    for key, bits in (("seed", 64), ("sample_index", 32)):
        value = fields.get(key)
        if value is not None and (type(value) is not int or not 0 <= value < 2**bits):
            raise PromptError(f"'{key}' must be an integer from 0 to 2**{bits} - 1, not {_show(value)}")
    for key in ("path", "image", "mask"):
        value = fields.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise PromptError(f"'{key}' must be the path of a file, not {_show(value)}")
    return GenerationRequest(prompt, seed, {key: fields[key] for key in fields if key not in ("prompt", "seed")})


def json_object(text: str, max_depth: int = MAX_JSON_DEPTH) -> dict[str, Any]:
    """Return an untrusted JSON object; it can be written again, and its text is safe to print.

    Raises PromptError: not JSON, not an object, nested too deeply, non-finite numbers, NUL, lone surrogates.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except PromptError:
        raise
    except json.JSONDecodeError as error:
        raise PromptError(f"not JSON: {error.msg} (column {error.colno})") from None
    except ValueError:  # int() reads at most 4300 digits
        raise PromptError("not JSON: a number with too many digits") from None
    except RecursionError:
        raise PromptError("JSON nested too deeply") from None
    if not isinstance(value, dict):
        raise PromptError(f"expected a JSON object, not {_show(value)}")
    _check(value, max_depth)
    return value


def _standard_input() -> BinaryIO:
    """Return standard input; of several processes the first reads it for all."""
    if distributed.world_size() == 1:
        return sys.stdin.buffer
    return io.BytesIO(distributed.all_gather_object(b"" if distributed.rank() else sys.stdin.buffer.read())[0])


def _read(
    file: str | Path | None, stdin: BinaryIO | None, plain_field: str, file_fields: Sequence[str]
) -> list[GenerationRequest]:
    name = "standard input" if file is None else str(file)
    try:
        if file is not None:
            with open(file, "rb") as stream:
                requests = _lines(stream, name, plain_field, file_fields)
        elif stdin is None and sys.stdin is None:
            raise PromptError("standard input is closed: nothing can be read from it")
        else:
            requests = _lines(stdin or _standard_input(), name, plain_field, file_fields)
    except OSError as error:
        raise PromptError(f"{name}: {error.strerror or error}; give a text file, one {plain_field} per line") from None
    if not requests:
        cause = "; did the command before it fail?" if file is None else ""
        raise PromptError(f"{name} is empty: expected one {plain_field} or JSON object per line{cause}")
    return requests


def _lines(stream: BinaryIO, name: str, plain_field: str, file_fields: Sequence[str]) -> list[GenerationRequest]:
    requests: list[GenerationRequest] = []
    errors: list[PromptError] = []
    for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES + 1), b""), 1):
        source = f"{name}, line {number}"
        text = _decode(line, source).removeprefix("\ufeff").strip()
        if not text:
            continue
        if len(requests) == MAX_REQUESTS:
            raise PromptError(f"{name}: more than {MAX_REQUESTS} requests; split it")
        try:
            requests.append(_request(text, source, plain_field, file_fields))
        except PromptError as error:
            errors.append(error)
            requests.append(GenerationRequest(fields={"error": str(error)}))
    if errors and len(errors) == len(requests):
        raise errors[0]
    return requests


def _decode(line: bytes, source: str) -> str:
    if len(line) > MAX_LINE_BYTES:
        raise PromptError(f"{source}: longer than {MAX_LINE_BYTES} bytes; is it text with one request per line?")
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PromptError(f"{source}: UTF-16; save it as UTF-8")
    if b"\0" in line:
        raise PromptError(f"{source}: a NUL character; is it a text file?")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise PromptError(f"{source}: not UTF-8 text; save it as UTF-8") from None


def _request(text: str, source: str, plain_field: str, file_fields: Sequence[str]) -> GenerationRequest:
    try:
        fields = _fields(text, plain_field)
        if "error" not in fields:
            fields |= _image_field(fields, plain_field, file_fields)
        request = parse_request(fields)
        if request.failed:
            return request
        if fields.get(plain_field) is None and not ("image" in file_fields and fields.get("image") is not None):
            raise PromptError(f"no '{plain_field}' among its fields: {_show(', '.join(fields))}")
        for key in file_fields:
            if request.fields.get(key) is not None:
                _check_file(request.fields[key])
        return request
    except PromptError as error:
        raise PromptError(f"{source}: {error}") from None


def _fields(text: str, plain_field: str) -> dict[str, Any]:
    if not text.startswith("{"):
        _check(text)
        return {plain_field: text}
    try:
        return json_object(text)
    except PromptError as error:
        raise PromptError(f'{error}; write a {plain_field} that starts with {{ as {{"{plain_field}": ...}}') from None


def _image_field(fields: dict[str, Any], plain_field: str, file_fields: Sequence[str]) -> dict[str, Any]:
    """Return the field that holds the image to work on, which a line can name in two ways."""
    image, path = fields.get("image"), fields.get("path")
    if plain_field == "path":
        return {"path": image} if path is None and image is not None else {}
    # The result of a variation has both: `image` was its source, and `path` is the result, which is the one to use.
    return {"image": path} if "image" in file_fields and path is not None else {}


def _check_file(path: str) -> None:
    """Find a wrong path before a model is loaded; that the file is an image is checked when it is read."""
    if os.path.isdir(path):
        raise PromptError(f"{_show(path, 300)} is a folder; give an image")
    if not os.path.isfile(path):
        raise PromptError(f"no file {_show(path, 300)} (relative to {os.getcwd()})")


def _check(value: Any, max_depth: int = MAX_JSON_DEPTH) -> None:
    if max_depth < 0:
        raise PromptError("JSON nested too deeply")
    if isinstance(value, str):
        if "\0" in value:
            raise PromptError("a NUL character in its text")
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise PromptError("text that is not Unicode (half a surrogate pair); write it as UTF-8")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise PromptError("a number too large")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, max_depth)
            _check(item, max_depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, max_depth - 1)


def _refuse_constant(name: str) -> None:
    raise PromptError(f"not JSON: {name}")


def _show(value: Any, max_length: int = 60) -> str:
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= max_length else text[: max_length - 3] + "..."
