"""Thousands of mutated files and arguments: no traceback, no hang, nothing written elsewhere.

The cases are the same every time; DALLE_FUZZ is the number of the first, DALLE_FUZZ_TIMES multiplies their count.
"""

import json
import os
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dalle_cli import checkpoint, images
from dalle_cli.generate.metadata import Origin, chunks
from dalle_cli.generate.requests import GenerationRequest, plan_images
from dalle_cli.recipe import to_yaml
from tests.fixtures.miniatures import noise, recipes
from tests.training.conftest import RECIPE
from tests.untrusted.made import odd_images, with_header, with_metadata
from tests.untrusted.mutations import VALUES, mutate, replace_one
from tests.untrusted.watching import TooSlow, watching

pytestmark = pytest.mark.slow

FIRST, TIMES = int(os.environ.get("DALLE_FUZZ", "0")), int(os.environ.get("DALLE_FUZZ_TIMES", "1"))


def cases(count: int, salt: str):
    """Yield the number and the random generator of each case; the number alone repeats it."""
    for number in range(FIRST, FIRST + count * TIMES):
        yield number, random.Random(f"{salt}/{number}")


def test_watcher_sees_writes_elsewhere(tmp_path):
    (tmp_path / "inside").mkdir()
    with watching(tmp_path / "inside") as events:
        (tmp_path / "inside" / "file").write_text("x")
        (tmp_path / "inside" / "file").read_text()
        assert events == []
        (tmp_path / "outside").write_text("x")
        os.rename(tmp_path / "inside" / "file", tmp_path / "moved")
    (tmp_path / "later").write_text("x")
    assert events == [f"open {tmp_path}/outside", f"os.rename {tmp_path}/moved"]
    with pytest.raises(TooSlow), watching(tmp_path, 0.05):
        time.sleep(5)


def spread(codes: list[int], *wanted: int) -> None:
    """Assert that the cases reached into the program: each of these exit codes occurred."""
    print({code: codes.count(code) for code in sorted(set(codes))})
    assert set(wanted) <= set(codes)


# ---- recipes ---------------------------------------------------------------------------------------------------------

CLIP = recipes(Path("dvae.safetensors"))["clip"] | {key: RECIPE[key] for key in ("data", "optim", "train")}
TOKENIZER = {"tokenizer": {"type": "dalle"}, "learn": {"vocab_size": 600, "captions": 9}, "data": RECIPE["data"]}
SYSTEM = {"system": {"type": "dalle1"}, "parts": {"transformer": "x", "clip": "y"}, "sample": {"temperature": 0.9}}
PRIOR = recipes(Path("@dvae.safetensors"))["dalle"] | {key: RECIPE[key] for key in ("data", "optim", "train")}


@pytest.mark.parametrize("family", ["dvae", "clip", "prior", "tokenizer", "systems"])
def test_recipes(attempt, files, family):
    recipe = {"dvae": RECIPE, "clip": CLIP, "prior": PRIOR, "tokenizer": TOKENIZER, "systems": SYSTEM}[family]
    text = json.dumps(recipe).replace("@", f"{files}/")
    recipe = json.loads(text.replace("nowhere.json", f"{files}/learned.json" if family != "tokenizer" else "starter"))
    codes = []
    for number, rng in cases(100, family):
        if number % 3:
            for _ in range(rng.choice((1, 1, 1, 3))):
                changed = replace_one(rng, recipe)
            content = json.dumps(changed).encode()
        else:
            content = mutate(rng, to_yaml(recipe).encode())
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
        max_examples=examples * TIMES, deadline=None, database=None, derandomize=not FIRST, print_blob=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    quick(given(strategy)(check))()


KEYS = st.sampled_from(
    ["model", "model.n_hid", "model.type", "task.type", "task.kl_weight", "data", "data.type", "data.path", "data.size",
     "optim.betas", "optim.lr", "train.steps", "train.save_every", "tracker.report_to", "frozen.x", "tokenizer",
     "extends", "a.b.c", "model.", ".", ""]
)  # fmt: skip
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
        words = [word.replace("\0", "").replace("@", "") for word in words]  # no argument can hold NUL
        codes.append(attempt(words, "train-dvae", "--recipe", "@train.yaml", "--dry-run", "-q", "--", *words))

    word = st.one_of(st.tuples(KEYS, SCALARS).map("=".join), st.text(max_size=20))
    fuzzed(check, st.lists(word, min_size=1, max_size=3), 300)
    spread(codes, 0, 2)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dvae", "clip", "dalle"])
def test_checkpoints(attempt, files, kind):
    path = files / f"{kind}.safetensors"
    data, metadata = path.read_bytes(), checkpoint.metadata(path)
    (length,) = struct.unpack("<Q", data[:8])
    codes = []
    for number, rng in cases(150, kind):
        how = number % 5
        if how == 0:
            content = data[:8] + mutate(rng, data[8 : 8 + length]) + data[8 + length :]
            if rng.random() < 0.7:
                content = struct.pack("<Q", len(content) - len(data) + length) + content[8:]
        elif how == 1:
            content = mutate(rng, data)
        elif how == 2:
            header = replace_one(rng, json.loads(data[8 : 8 + length]))
            content = with_header(data, header)
        else:
            fields = {"recipe": metadata["recipe"], "tokenizer": metadata["tokenizer"]}
            changed = {key: replace_one(rng, value) if rng.random() < 0.6 else value for key, value in fields.items()}
            content = with_metadata(data, **{key: value for key, value in changed.items() if value is not None})
        Path("case.safetensors").write_bytes(content)
        codes.append(attempt(number, "inspect", "case.safetensors", "--verify"))
        use = {
            "dvae": ("reconstruct", "@good.png", "--overwrite", "-q", "--model"),
            "clip": ("rerank", "@good.png", "--prompt", "x", "-q", "--model"),
            "dalle": ("sample", "x", "--overwrite", "-q", "--recipe"),
        }[kind]
        codes.append(attempt(number, *use, "case.safetensors"))
    spread(codes, 0, 3)


# ---- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["whole.tar", "dots.tar", "nul.jsonl", "numbers.jsonl", "columns.csv", "missing.csv"])
def test_shards_and_tables(attempt, files, name):
    data = (files / name).read_bytes().replace(b"picture", b"image").replace(b"words", b"text")
    Path("good.png").write_bytes((files / "good.png").read_bytes())
    codes = []
    for number, rng in cases(100, name):
        case = Path(f"case{Path(name).suffix}")
        case.write_bytes(mutate(rng, data))
        if case.suffix == ".tar" and number % 2:
            successes = rng.choice((0, 4, 10**9, -1, "x", None, [1]))
            Path("case_stats.json").write_bytes(json.dumps({"successes": successes}).encode())
        codes.append(attempt(number, "data", "check", str(case), "-q"))
        if number % 5 == 0:
            words = ("-n", "2", "--overwrite", "data.size=8", "data.require_captions=false")
            codes.append(attempt(number, "data", "preview", str(case), *words))
        Path("case_stats.json").unlink(missing_ok=True)
    spread(codes, 3)


def test_images(attempt):
    originals = list(odd_images().items())
    codes = []
    for number, rng in cases(200, "images"):
        name, data = rng.choice(originals)
        case = Path(f"case{Path(name).suffix}")
        case.write_bytes(mutate(rng, data))
        codes.append(attempt(number, "reconstruct", str(case), "--model", "@dvae.safetensors", "--overwrite", "-q"))
    spread(codes, 0, 4)


# ---- prompts and metadata of images ----------------------------------------------------------------------------------

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
    ["prompt", "seed", "sample_index", "image", "mask", "path", "index", "error", "score", "id", "negative_prompt"]
)


def test_prompt_lines(attempt):
    codes = []

    def check(lines: list[bytes]) -> None:
        stdin = b"\n".join(lines)
        for words in (
            ("sample", "--recipe", "@tiny.yaml", "-"),
            ("sample", "--recipe", "@tiny.yaml", "--rerank", "3", "-"),
        ):
            codes.append(attempt(stdin, *words, "--dry-run", "-q", stdin=stdin))
        codes.append(attempt(stdin, "evaluate", "scenes", "--objects", "shapes", "-q", "-", stdin=stdin))

    line = st.one_of(
        st.dictionaries(FIELDS, JSON, max_size=4).map(lambda fields: json.dumps(fields).encode()),
        st.fixed_dictionaries({"prompt": st.text(max_size=20), "seed": st.integers()}).map(
            lambda one: json.dumps(one).encode()
        ),
        st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.binary(max_size=30),
        st.binary(max_size=20).map(lambda tail: b'{"prompt": "x"' + tail),
    )
    fuzzed(check, st.lists(line, max_size=4), 200)
    spread(codes, 0, 3)


def test_generated_lines(attempt, files):
    """Commands over mutated lines: sample, then rerank."""
    good = "\n".join(
        json.dumps({"prompt": f"a red {i}", "seed": i, "id": [i], "path": f"{files}/good.png"}) for i in range(3)
    )
    codes = []
    for number, rng in cases(50, "drawn"):
        stdin = mutate(rng, good.encode())
        codes.append(attempt(number, "sample", "--recipe", "@tiny.yaml", "-q", "--overwrite", "-", stdin=stdin))
        codes.append(attempt(number, "rerank", "--model", "@clip.safetensors", "-q", "-", stdin=stdin))
    spread(codes, 0, 3, 4)


def test_image_metadata(attempt):
    (item,) = plan_images([GenerationRequest("a red circle", None, {"id": 7})], 1, 5)
    origin = Origin(
        "sample", "dalle1", {"temperature": 0.5, "image": "x.png", "keep_rows": 2}, {"transformer": "ab" * 32}
    )
    text = chunks(origin, item, (16, 16))
    images.save_png(noise(), "whole.png", text)
    data, record = Path("whole.png").read_bytes(), json.loads(text["dalle"])
    codes = []
    for number, rng in cases(300, "says"):
        if number % 2:
            changed = json.dumps(replace_one(rng, record))
            images.save_png(
                noise(),
                "case.png",
                {**text, "dalle": changed if number % 4 == 1 else mutate(rng, changed.encode()).decode("latin-1")},
            )
        else:
            Path("case.png").write_bytes(mutate(rng, data))
        codes.append(attempt(number, "inspect", "case.png"))
        codes.append(attempt(number, "sample", "--reproduce", "case.png", "--recipe", "@tiny.yaml", "--dry-run", "-q"))
    spread(codes, 0, 3)


@pytest.mark.parametrize("name", ["learned.json", "words.json"])
def test_vocabularies(attempt, files, name):
    data = (files / name).read_bytes()
    codes = []
    for number, rng in cases(100, name):
        content = json.dumps(replace_one(rng, json.loads(data))).encode() if number % 2 else mutate(rng, data)
        Path("case.json").write_bytes(content)
        codes.append(attempt(number, "inspect", "case.json"))
        codes.append(attempt(number, "data", "check", "@odd", "--tokenizer", "case.json", "-q"))
    spread(codes, 3)
