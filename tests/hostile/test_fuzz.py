"""Thousands of mutated files and words: whatever comes in, no traceback, no hang, nothing written elsewhere.

The cases are the same every time; DALLE_FUZZ is another number to start from, DALLE_FUZZ_TIMES how many times more.
"""

import json
import os
import random
import re
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dalle_cli import checkpoint, images
from dalle_cli.generate.metadata import Origin, chunks
from dalle_cli.generate.prompts import Request, plan
from dalle_cli.recipe import to_yaml
from tests.generate.conftest import noise, recipes
from tests.hostile.conftest import odd_pictures, sealed, with_header
from tests.training.conftest import RECIPE

pytestmark = pytest.mark.slow

FIRST, TIMES = int(os.environ.get("DALLE_FUZZ", "0")), int(os.environ.get("DALLE_FUZZ_TIMES", "1"))
LIMIT = 10  # seconds a case may take; most take milliseconds
CODES = {0, 1, 2, 3, 4, 73}

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    255,
    10_000,
    (1 << 31) - 1,
    1 << 63,
    10**30,
    0.5,
    -1.5,
    1e300,
    "nan",
    "inf",
    "1e999",
    "9" * 5000,
    "",
    " ",
    "x",
    "None",
    "null",
    "???",
    "${model}",
    "${oc.env:HOME}",
    "${oc.create:[1]}",
    "${",
    "a\0b",
    "\ud800",
    "\x1b[2J",
    "é" * 300,
    "../../x",
    "/etc/passwd",
    "/dev/null",
    ".",
    "~",
    "*",
    "[",
    "{",
    "{0..9}",
    "published",
    "starter",
    "starter/clip",
    "scenes",
    "folder",
    "table",
    "shards",
    "mixture",
    "vit",
    "os.system",
    [],
    {},
    [1, 2],
    ["x"],
    [[[[]]]],
    [None],
    {"type": "vit"},
    {"type": None},
    {"a": {"b": {"c": 1}}},
    {"type": "dvae", "hidden": 8},
    {"1": 2},
    "x" * 100_000,
]


def cases(count: int, salt: str):
    """Generators of random numbers, each of a case that can be run again by its number."""
    for number in range(FIRST, FIRST + count * TIMES):
        yield number, random.Random(f"{salt}/{number}")


# ---- mutations -------------------------------------------------------------------------------------------------------


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A file with a few bytes flipped, numbers changed, parts cut out, doubled, moved, or its end missing."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at, length = rng.randrange(len(out) + 1), min(rng.choice((1, 2, 4, 8, 64, 512)), len(out))
        other = rng.randrange(len(out) + 1)
        kind = rng.randrange(8)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"[", b'"', b"\n")) * length
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[other : other + length]
        elif kind == 4:
            out[at : at + length] = out[other : other + length]
        elif kind == 5 and rng.random() < 0.3:
            del out[at:]
        elif kind == 6:
            numbers = list(re.finditer(rb"\d+", out))
            if numbers:
                number = rng.choice(numbers)
                hostile = (b"0", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"9" * 5000, b"4294967296", b"x")
                out[number.start() : number.end()] = rng.choice(hostile)
        else:
            out[at:at] = rng.choice(
                (b"{", b"}", b"]", b",", b":", b"\\ud800", b"\0", b"\xc3", b"&a *a", b"!!", b"\r\n\r\n", b"- ")
            )
    return bytes(out)


def replaced(rng: random.Random, value):
    """A tree of dicts and lists with one place changed: another value, a key gone, renamed, doubled elsewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.7:
            return value | {key: replaced(rng, value[key])}
        rest = {name: item for name, item in value.items() if name != key}
        if kind < 0.8:
            return rest
        if kind < 0.9:
            return rest | {rng.choice((key[:-1], key + "x", "type", "", "a.b", "extends", "0")): value[key]}
        return value | {rng.choice(("type", "x", "extends", "path")): rng.choice(VALUES)}
    return rng.choice(VALUES)


# ---- running ---------------------------------------------------------------------------------------------------------


class TooSlow(BaseException):
    """A case that ran out of time; nothing in the package may catch it."""


WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
watched: list[tuple[Path, list[str]]] = []  # what may be written below, and what was done elsewhere


def _audit(event: str, details: tuple) -> None:
    if not watched:
        return
    allowed, found = watched[-1]
    if event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class"):
        found.append(f"{event} {details}")
    if event == "open" and isinstance(details[0], str | bytes) and (details[2] or 0) & WRITING:
        path = os.path.abspath(os.fsdecode(details[0]))
        if not path.startswith(str(allowed)) and path != os.devnull and "__pycache__" not in path:
            found.append(f"writes {path}")
    if event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"):
        path = os.path.abspath(os.fsdecode(details[0]))
        if not path.startswith(str(allowed)):
            found.append(f"{event} {path}")


@pytest.fixture(scope="session", autouse=True)
def audited():
    sys.addaudithook(_audit)


@pytest.fixture
def attempt(run, tmp_path):
    """Run a command; what it does elsewhere, what it raises that nobody meant, and a hang are failures."""

    @contextmanager
    def limited():
        def late(number, frame):
            raise TooSlow

        found: list[str] = []
        before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        watched.append((tmp_path, found))
        try:
            yield
        finally:
            watched.pop()
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert not found, found

    def command(note: object, *words: str, stdin: bytes = b"") -> int:
        try:
            with limited():
                ended = run(*words, stdin=stdin)
            assert ended.code in CODES
            assert "Traceback" not in ended.err
            assert "internal error" not in ended.err
            assert all(line.isprintable() for line in ended.err.splitlines())
            return ended.code
        except BaseException as error:
            raise AssertionError(
                f"case {note}: {type(error).__name__}: {str(error)[:500]}; {' '.join(words)[:300]}"
            ) from error

    return command


def spread(codes: list[int], *wanted: int) -> None:
    """That the cases reached into the program: each of these exit codes came up."""
    print({code: codes.count(code) for code in sorted(set(codes))})
    assert set(wanted) <= set(codes)


# ---- recipes ---------------------------------------------------------------------------------------------------------

CLIP = recipes(Path("dvae.safetensors"))["clip"] | {key: RECIPE[key] for key in ("data", "optim", "train")}
TOKENIZER = {"tokenizer": {"type": "dalle"}, "learn": {"size": 600, "captions": 9}, "data": RECIPE["data"]}
SYSTEM = {"system": {"type": "dalle1"}, "parts": {"transformer": "x", "clip": "y"}, "sample": {"temperature": 0.9}}
PRIOR = recipes(Path("@dvae.safetensors"))["dalle"] | {key: RECIPE[key] for key in ("data", "optim", "train")}


@pytest.mark.parametrize("family", ["dvae", "clip", "prior", "tokenizer", "systems"])
def test_recipes(attempt, files, family):
    recipe = {"dvae": RECIPE, "clip": CLIP, "prior": PRIOR, "tokenizer": TOKENIZER, "systems": SYSTEM}[family]
    text = json.dumps(recipe).replace("@", f"{files}/")
    recipe = json.loads(text.replace("nowhere.json", f"{files}/learned.json" if family == "prior" else "starter"))
    codes = []
    for number, rng in cases(150, family):
        if number % 3:
            for _ in range(rng.choice((1, 1, 1, 3))):
                changed = replaced(rng, recipe)
            content = json.dumps(changed).encode()
        else:
            content = mutated(rng, to_yaml(recipe).encode())
        Path("case.yaml").write_bytes(content)
        codes.append(attempt(number, "check", "--recipe", "case.yaml", "--family", family))
        if family in ("dvae", "clip", "prior"):
            codes.append(attempt(number, f"train-{family}", "--recipe", "case.yaml", "--dry-run", "-q"))
        elif family == "systems":
            codes.append(attempt(number, "sample", "x", "--recipe", "case.yaml", "--dry-run", "-q"))
    spread(codes, 0, 2)


def fuzzed(check: Callable, strategy: st.SearchStrategy, examples: int) -> None:
    """Call `check` with examples of a strategy."""
    quick = settings(
        max_examples=examples * TIMES,
        deadline=None,
        database=None,
        derandomize=not FIRST,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    quick(given(strategy)(check))()


KEYS = st.sampled_from(
    [
        "model",
        "model.hidden",
        "model.type",
        "task.type",
        "task.kl",
        "data",
        "data.type",
        "data.path",
        "data.size",
        "optim.betas",
        "optim.lr",
        "train.steps",
        "train.save_every",
        "tracker.extras",
        "frozen.x",
        "tokenizer",
        "extends",
        "a.b.c",
        "model.",
        ".",
        "",
    ]
)
SCALARS = st.one_of(
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        [value if isinstance(value, str) else json.dumps(value) for value in VALUES if value != "x" * 100_000]
    ),
    st.recursive(st.integers() | st.text(max_size=4), st.lists, max_leaves=5).map(json.dumps),
)


def test_overrides(attempt):
    codes = []

    def check(words: list[str]) -> None:
        words = [word.replace("\0", "").replace("@", "") for word in words]  # no argument can hold the one
        codes.append(attempt(words, "train-dvae", "--recipe", "@train.yaml", "--dry-run", "-q", "--", *words))

    word = st.one_of(st.tuples(KEYS, SCALARS).map("=".join), st.text(max_size=20))
    fuzzed(check, st.lists(word, min_size=1, max_size=3), 400)
    spread(codes, 0, 2)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dvae", "clip", "dalle"])
def test_checkpoints(attempt, files, kind):
    path = files / f"{kind}.safetensors"
    whole, found = path.read_bytes(), checkpoint.metadata(path)
    (length,) = struct.unpack("<Q", whole[:8])
    codes = []
    for number, rng in cases(200, kind):
        how = number % 5
        if how == 0:
            content = whole[:8] + mutated(rng, whole[8 : 8 + length]) + whole[8 + length :]
            if rng.random() < 0.7:
                content = struct.pack("<Q", len(content) - len(whole) + length) + content[8:]
        elif how == 1:
            content = mutated(rng, whole)
        elif how == 2:
            header = replaced(rng, json.loads(whole[8 : 8 + length]))
            content = with_header(whole, header)
        else:
            fields = {"recipe": found["recipe"], "tokenizer": found["tokenizer"]}
            content = sealed(whole, **{key: value for key, value in replaced(rng, fields).items() if value is not None})
        Path("case.safetensors").write_bytes(content)
        codes.append(attempt(number, "inspect", "case.safetensors", "--verify"))
        use = {
            "dvae": ("evaluate", "dvae", "-n", "1", "--glyphs", "shapes", "--model"),
            "clip": ("rerank", "@good.png", "--prompt", "x", "-q", "--model"),
            "dalle": ("sample", "x", "--overwrite", "-q", "--recipe"),
        }[kind]
        codes.append(attempt(number, *use, "case.safetensors"))
    spread(codes, 0, 3)


# ---- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["whole.tar", "dots.tar", "nul.jsonl", "numbers.jsonl", "columns.csv", "missing.csv"])
def test_shards_and_tables(attempt, files, name):
    whole = (files / name).read_bytes().replace(b"picture", b"image").replace(b"words", b"text")
    Path("good.png").write_bytes((files / "good.png").read_bytes())
    codes = []
    for number, rng in cases(150, name):
        case = Path(f"case{Path(name).suffix}")
        case.write_bytes(mutated(rng, whole))
        if case.suffix == ".tar" and number % 2:
            successes = rng.choice((0, 4, 10**9, -1, "x", None, [1]))
            Path("case_stats.json").write_bytes(json.dumps({"successes": successes}).encode())
        codes.append(attempt(number, "data", "check", str(case), "-q"))
        if number % 5 == 0:
            words = ("-n", "2", "--overwrite", "data.size=8", "data.captions=false")
            codes.append(attempt(number, "data", "preview", str(case), *words))
        Path("case_stats.json").unlink(missing_ok=True)
    spread(codes, 3)


def test_pictures(attempt):
    pictures = list(odd_pictures().items())
    codes = []
    for number, rng in cases(300, "pictures"):
        name, whole = rng.choice(pictures)
        case = Path(f"case{Path(name).suffix}")
        case.write_bytes(mutated(rng, whole))
        codes.append(attempt(number, "reconstruct", str(case), "--model", "@dvae.safetensors", "--overwrite", "-q"))
    spread(codes, 0, 4)


# ---- prompts and what pictures say -----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["prompt", "seed", "draw", "image", "mask", "path", "index", "error", "score", "id", "negative_prompt"]
)


def test_lines_of_prompts(attempt):
    codes = []

    def check(lines: list[bytes]) -> None:
        stdin = b"\n".join(lines)
        for words in (
            ("sample", "--recipe", "@tiny.yaml", "-"),
            ("sample", "--recipe", "@tiny.yaml", "--rerank", "3", "-"),
        ):
            codes.append(attempt(stdin, *words, "--dry-run", "-q", stdin=stdin))
        codes.append(attempt(stdin, "evaluate", "scenes", "--glyphs", "shapes", "-q", "-", stdin=stdin))

    line = st.one_of(
        st.dictionaries(FIELDS, JSON, max_size=4).map(lambda fields: json.dumps(fields).encode()),
        st.fixed_dictionaries({"prompt": st.text(max_size=20), "seed": st.integers()}).map(
            lambda one: json.dumps(one).encode()
        ),
        st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.binary(max_size=30),
        st.binary(max_size=20).map(lambda tail: b'{"prompt": "x"' + tail),
    )
    fuzzed(check, st.lists(line, max_size=4), 250)
    spread(codes, 0, 3)


def test_lines_that_are_drawn(attempt, files):
    """Whole commands over mutated lines: drawn, judged, and judged again."""
    good = "\n".join(
        json.dumps({"prompt": f"a red {i}", "seed": i, "id": [i], "path": f"{files}/good.png"}) for i in range(3)
    )
    codes = []
    for number, rng in cases(80, "drawn"):
        stdin = mutated(rng, good.encode())
        codes.append(attempt(number, "sample", "--recipe", "@tiny.yaml", "-q", "--overwrite", "-", stdin=stdin))
        codes.append(attempt(number, "rerank", "--model", "@clip.safetensors", "-q", "-", stdin=stdin))
    spread(codes, 0, 3, 4)


def test_what_pictures_say(attempt):
    (item,) = plan([Request("a red circle", None, {"id": 7})], 1, 5)
    origin = Origin(
        "sample", "dalle1", {"temperature": 0.5, "image": "x.png", "keep_rows": 2}, {"transformer": "ab" * 32}
    )
    text = chunks(origin, item, (16, 16))
    images.save_png(noise(), "whole.png", text)
    whole, record = Path("whole.png").read_bytes(), json.loads(text["dalle"])
    codes = []
    for number, rng in cases(400, "says"):
        if number % 2:
            changed = json.dumps(replaced(rng, record))
            images.save_png(
                noise(),
                "case.png",
                {**text, "dalle": changed if number % 4 == 1 else mutated(rng, changed.encode()).decode("latin-1")},
            )
        else:
            Path("case.png").write_bytes(mutated(rng, whole))
        codes.append(attempt(number, "inspect", "case.png"))
        codes.append(attempt(number, "sample", "--like", "case.png", "--recipe", "@tiny.yaml", "--dry-run", "-q"))
    spread(codes, 0, 3)


@pytest.mark.parametrize("name", ["learned.json", "words.json"])
def test_vocabularies(attempt, files, name):
    whole = (files / name).read_bytes()
    codes = []
    for number, rng in cases(100, name):
        content = json.dumps(replaced(rng, json.loads(whole))).encode() if number % 2 else mutated(rng, whole)
        Path("case.json").write_bytes(content)
        codes.append(attempt(number, "inspect", "case.json"))
        codes.append(attempt(number, "data", "check", "@odd", "--tokenizer", "case.json", "-q"))
    spread(codes, 3)
