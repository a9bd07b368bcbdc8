"""What to draw: requests from words, a file or standard input, and the pictures that they amount to.

A line is a prompt (for a command that works on pictures: the path of one), or, when it starts with `{`, a JSON object
of fields. Results of one command are requests of the next, which is what makes pipes work.
"""

import hashlib
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

LONGEST_LINE = 1 << 18  # bytes; room for an embedding or the tokens of a picture beside the prompt
LONGEST_PROMPT = 10_000  # characters; no text encoder reads a tenth of it
MOST_REQUESTS = 1_000_000
MOST_PICTURES = 10_000_000  # of a run, candidates included
DEEPEST = 32  # nested JSON

# What a result says of its own picture, and what would be a lie about another that is drawn from it.
OWN_FIELDS = frozenset(["index", "draw", "path", "score", "skipped", "error"])


class PromptError(ValueError):
    """A request that cannot be meant; the message is one line that names the place."""


@dataclass(frozen=True)
class Request:
    """What is asked for. fields: everything else of the line (`image`, `mask`, `path`, `score`, unknown ones)."""

    prompt: str | None = None
    seed: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> dict[str, Any]:
        """The request as it came: what a judge of an earlier result adds its score to."""
        named = {"prompt": self.prompt, "seed": self.seed}
        return {**{key: value for key, value in named.items() if value is not None}, **self.fields}

    @property
    def passed(self) -> dict[str, Any]:
        """The fields that the result of a new picture repeats."""
        return {key: value for key, value in self.fields.items() if key not in OWN_FIELDS}

    @property
    def failed(self) -> bool:
        """An earlier command could not draw this one: without its picture there is only the line to pass on."""
        return "error" in self.fields


@dataclass(frozen=True)
class Item:
    """One picture of a run: the `index`-th of the run, made of the noise that is the `draw`-th of `seed`."""

    index: int
    seed: int
    draw: int
    request: Request

    @property
    def noise(self) -> int:
        """The seed of this picture's own generator, of 63 bits: far from those of all other pictures."""
        return int.from_bytes(hashlib.sha256(f"{self.seed} {self.draw}".encode()).digest()[:8]) >> 1


def gather(
    words: Iterable[str] = (),
    file: str | Path | None = None,
    plain: Literal["prompt", "image", "path"] = "prompt",
    pictures: Sequence[str] = (),
    stdin: BinaryIO | None = None,
) -> list[Request]:
    """Requests from words, each as if it were a line, and from a file; `-` in either place is standard input.

    plain: the field that a line without `{` is, and that every request must have but those that failed: `prompt`,
    `image` (a picture to draw from; the `path` of an earlier result counts as one) or `path` (a picture to judge).
    pictures: fields that name files which this command reads; they must be there. An `image` among them stands in
    place of a prompt.
    A line that cannot be meant is a request that failed, unless all of them are; a word raises at once, and so does
    what is no text. Nothing given gives nothing; a file or standard input without requests is an error. Raises
    PromptError.
    """
    words = [*words, *(["-"] if str(file) == "-" else [])]
    if words.count("-") > 1:
        raise PromptError("standard input can be read only once: give one '-'")
    requests = []
    for word in words:
        if word == "-":
            requests += _read(None, stdin, plain, pictures)
        elif not word.strip():
            raise PromptError(f'command line: an empty {plain}; if it is meant, give {{"{plain}": ""}}')
        else:
            requests.append(_request(word.strip(), "command line", plain, pictures))
    if file is not None and str(file) != "-":
        requests += _read(file, None, plain, pictures)
    return requests


def plan(requests: Iterable[Request], count: int = 1, seed: int | None = None, default: int = 0) -> list[Item]:
    """`count` pictures of each request, in order.

    A seed given here is the seed of all; otherwise a request with its own gets that one's pictures from its `draw`
    (0 if it names none) on, so that a result line draws its picture again; the others share `default`. A picture
    depends on (seed, draw) and its request alone. Raises PromptError for more pictures than can be counted up.
    """
    requests = list(requests)
    if len(requests) * count > MOST_PICTURES:
        raise PromptError(
            f"{len(requests)} prompts x {count} pictures are more than {MOST_PICTURES} for one run; divide it"
        )
    items: list[Item] = []
    for request in requests:
        first = request.fields.get("draw") or 0
        for i in range(count):
            index = len(items)
            if seed is None and request.seed is not None:
                items.append(Item(index, request.seed, first + i, request))
            else:
                items.append(Item(index, default if seed is None else seed, index, request))
    return items


def request_of(fields: Mapping[str, Any]) -> Request:
    """A request of the fields of a JSON object, types and sizes checked. Raises PromptError."""
    prompt, number = fields.get("prompt"), fields.get("seed")
    if prompt is not None and not isinstance(prompt, str):
        raise PromptError(f"'prompt' must be text, not {_show(prompt)}")
    if prompt is not None and len(prompt) > LONGEST_PROMPT:
        raise PromptError(f"a prompt of {len(prompt)} characters; shorten it to {LONGEST_PROMPT}")
    for key, bits in (("seed", 64), ("draw", 32)):
        value = fields.get(key)
        if value is not None and (type(value) is not int or not 0 <= value < 2**bits):
            raise PromptError(f"'{key}' must be a whole number from 0 to 2**{bits} - 1, not {_show(value)}")
    for key in ("path", "image", "mask"):
        value = fields.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise PromptError(f"'{key}' must be the path of a file, not {_show(value)}")
    return Request(prompt, number, {key: fields[key] for key in fields if key not in ("prompt", "seed")})


def json_object(text: str, deepest: int = DEEPEST) -> dict[str, Any]:
    """A JSON object that somebody else wrote, such that it can be written again and its text printed anywhere.

    Raises PromptError: no JSON, no object, nested too deeply, numbers that are none, NUL, lone surrogates.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except PromptError:
        raise
    except json.JSONDecodeError as error:
        raise PromptError(f"not JSON: {error.msg} (column {error.colno})") from None
    except ValueError:  # int() reads 4300 digits
        raise PromptError("not JSON: a number of too many digits") from None
    except RecursionError:
        raise PromptError("JSON nested too deeply") from None
    if not isinstance(value, dict):
        raise PromptError(f"expected a JSON object, not {_show(value)}")
    _check(value, deepest)
    return value


def _standard_input() -> BinaryIO:
    """Of several processes, which have one in common, the first reads it for all."""
    if distributed.world_size() == 1:
        return sys.stdin.buffer
    return io.BytesIO(distributed.all_gather_object(b"" if distributed.rank() else sys.stdin.buffer.read())[0])


def _read(file: str | Path | None, stdin: BinaryIO | None, plain: str, pictures: Sequence[str]) -> list[Request]:
    name = "standard input" if file is None else str(file)
    try:
        if file is not None:
            with open(file, "rb") as stream:
                requests = _lines(stream, name, plain, pictures)
        elif stdin is None and sys.stdin is None:
            raise PromptError("standard input is closed: nothing can be read from it")
        else:
            requests = _lines(stdin or _standard_input(), name, plain, pictures)
    except OSError as error:
        raise PromptError(f"{name}: {error.strerror or error}; give a text file, one {plain} a line") from None
    if not requests:
        cause = "; did the command before it fail?" if file is None else ""
        raise PromptError(f"{name} is empty: expected one {plain} or JSON object a line{cause}")
    return requests


def _lines(stream: BinaryIO, name: str, plain: str, pictures: Sequence[str]) -> list[Request]:
    requests: list[Request] = []
    errors: list[PromptError] = []
    for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), 1):
        where = f"{name}, line {number}"
        text = _decode(line, where).removeprefix("\ufeff").strip()
        if not text:
            continue
        if len(requests) == MOST_REQUESTS:
            raise PromptError(f"{name}: more than {MOST_REQUESTS} requests; split it")
        try:
            requests.append(_request(text, where, plain, pictures))
        except PromptError as error:
            errors.append(error)
            requests.append(Request(fields={"error": str(error)}))
    if errors and len(errors) == len(requests):
        raise errors[0]
    return requests


def _decode(line: bytes, where: str) -> str:
    if len(line) > LONGEST_LINE:
        raise PromptError(f"{where}: longer than {LONGEST_LINE} bytes; is it text, one request a line?")
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PromptError(f"{where}: UTF-16; save it as UTF-8")
    if b"\0" in line:
        raise PromptError(f"{where}: a NUL character; is it a text file?")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise PromptError(f"{where}: not UTF-8 text; save it as UTF-8") from None


def _request(text: str, where: str, plain: str, pictures: Sequence[str]) -> Request:
    try:
        fields = _fields(text, plain)
        if "error" not in fields:
            fields |= _picture(fields, plain, pictures)
        made = request_of(fields)
        if made.failed:
            return made
        if fields.get(plain) is None and not ("image" in pictures and fields.get("image") is not None):
            raise PromptError(f"no '{plain}' among its fields: {_show(', '.join(fields))}")
        for key in pictures:
            if made.fields.get(key) is not None:
                _check_file(made.fields[key])
        return made
    except PromptError as error:
        raise PromptError(f"{where}: {error}") from None


def _fields(text: str, plain: str) -> dict[str, Any]:
    if not text.startswith("{"):
        _check(text)
        return {plain: text}
    try:
        return json_object(text)
    except PromptError as error:
        raise PromptError(f'{error}; a {plain} that starts with {{ goes into {{"{plain}": ...}}') from None


def _picture(fields: dict[str, Any], plain: str, pictures: Sequence[str]) -> dict[str, Any]:
    """The field that holds the picture to work on, whichever of the two names it came under."""
    image, path = fields.get("image"), fields.get("path")
    if plain == "path":
        return {"path": image} if path is None and image is not None else {}
    # The result of a variation has both: `image`, what it was drawn from, and `path`, itself, which is what to go on.
    return {"image": path} if "image" in pictures and path is not None else {}


def _check_file(path: str) -> None:
    """A wrong path is found before a model is loaded; whether the file is a picture, when it is read."""
    if os.path.isdir(path):
        raise PromptError(f"{_show(path, 300)} is a folder; give a picture")
    if not os.path.isfile(path):
        raise PromptError(f"no file {_show(path, 300)} (seen from {os.getcwd()})")


def _check(value: Any, deepest: int = DEEPEST) -> None:
    if deepest < 0:
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
            _check(key, deepest)
            _check(item, deepest - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, deepest - 1)


def _refuse_constant(name: str) -> None:
    raise PromptError(f"not JSON: {name}")


def _show(value: Any, most: int = 60) -> str:
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."
