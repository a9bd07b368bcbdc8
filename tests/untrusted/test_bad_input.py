"""Bad input through the command line: one line, the right exit code, nothing left behind."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import one_line
from tests.untrusted.conftest import tree
from tests.untrusted.made import odd_images
from tests.untrusted.refused import CHECK, RECONSTRUCT, REFUSED, RERANK, SAMPLE, TRAIN, TRAIN_TOKENIZER

CAPTION = "a red circle"


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_gives_one_line(run, files, tmp_path, name):
    words, code, message = REFUSED[name]
    before = tree(files)
    ended = run(*words)
    assert (ended.code, one_line(ended.err)) == (code, True), ended.err
    assert message in ended.err
    assert len(ended.err) < 1100
    assert tree(tmp_path) == {}
    assert tree(files) == before


# ---- unusual and valid -----------------------------------------------------------------------------------------------


def test_odd_images_are_read(run, files):
    """Animated, CMYK, 16-bit, rotated by EXIF, palette, transparent: every command reads them all."""
    reconstructed = run(*RECONSTRUCT, "@odd")
    assert reconstructed.code == 0, reconstructed.err
    shown = {
        Path(line["image"]).name: np.asarray(Image.open(line["path"])).astype(int) for line in reconstructed.results
    }
    assert len(shown) == len(odd_images())
    for name, pixels in shown.items():
        red, green, blue = pixels[:16].mean(axis=(0, 1)) if name != "turned.jpg" else pixels[:7].mean(axis=(0, 1))
        wanted = {"deep.png": (156, 156, 156), "palette.png": (255, 255, 255), "alpha.png": (255, 127, 127)}
        assert np.allclose((red, green, blue), wanted.get(name, (254, 0, 0)), atol=4), name
    assert shown["turned.jpg"][9:16, :, 2].mean() > 240  # the right half, now at the bottom
    ranked = run(*RERANK, "@odd", "--prompt", CAPTION)
    assert (ranked.code, len(ranked.results)) == (0, len(odd_images()))
    checked = run(*CHECK, "@odd")
    assert (checked.code, checked.result["good"]) == (0, len(odd_images()))
    assert run("data", "preview", "@odd", "data.size=16").code == 0
    data = (
        "data.type=folder",
        "data.path=@odd",
        "data.val_samples=0",
        "data.require_captions=true",
        "data.num_workers=0",
    )
    trained = run(*TRAIN, *data, "train.steps=2", "train.preview_images=0")
    assert trained.code == 0, trained.err
    assert not Path("checkpoints/dvae-train/bad_samples.jsonl").exists()


@pytest.mark.parametrize("data", ["@long", "@nul", "@no-text", "@surrogate.jsonl", "@dots.tar", "@cut.tar"])
def test_odd_captions_and_names_are_data(run, files, tmp_path, data):
    """Captions of 10,000 words, with NUL, not UTF-8, with half a surrogate pair; names with `..` and from `/`."""
    ended = run(*CHECK, data, "--tokenizer", "@learned.json", "--context-length", "8")
    assert ended.code == 0, ended.err
    assert ended.result["good"] > 0
    assert tree(tmp_path) == {}
    assert run("data", "preview", data, "-n", "4", "data.size=16").code == 0
    kind = {".jsonl": "table", ".tar": "shards"}.get(Path(data).suffix, "folder")
    words = (*TRAIN_TOKENIZER, f"data.type={kind}", f"data.path={data}", "learn.captions=100")
    assert run(*words).code == 0
    assert set(tree(tmp_path)) == {"one/two/sheet.png", "one/two/w.json"}


def test_bad_samples_are_counted(run, files, tmp_path):
    ended = run(*CHECK, "@bombs", "data.require_captions=false")
    assert (ended.code, ended.err) == (4, "")
    assert ended.result["bad"] == {"too many pixels": 2, "cannot be decoded": 1}
    assert ended.result["good"] == 2
    for table, bad in (("nul", 1), ("numbers", 1)):
        ended = run(*CHECK, f"@{table}.jsonl", "data.require_captions=false")
        assert (ended.code, ended.result["good"], sum(ended.result["bad"].values())) == (4, 1, bad)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "prompt",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a\\b\\..",
        "con",
        ".",
        "...",
        "x" * 500,
        "é" * 500,
        "a\tb\x1b[31m",
        "-n\n-n",
        "%s{0}$HOME",
    ],
)
def test_prompts_are_not_file_names(run, tmp_path, prompt):
    ended = run(*SAMPLE, json.dumps({"prompt": prompt}), "--sheet", "sheet.png")
    assert (ended.code, ended.err) == (0, "")
    (path,) = (name for name in tree(tmp_path) if name != "one/two/sheet.png")
    assert Path(path).parent == Path("one/two/out")
    assert re.fullmatch(r"000000-0-[a-z0-9-]{1,40}\.png", Path(path).name)
    assert run("inspect", ended.result["path"]).result["dalle"]["prompt"] == prompt


def test_enormous_numbers_are_harmless(run):
    words = ("--batch-size", "9" * 18, "--top-k", "9" * 18, "--seed", str((1 << 64) - 1), "--rerank", "2", "--top", "2")
    ended = run(*SAMPLE, "x", *words)
    assert (ended.code, len(ended.results)) == (0, 2)


# ---- lines -----------------------------------------------------------------------------------------------------------


def test_invalid_lines_are_failed_items(run):
    lines = (
        "a red circle",
        "{broken",
        '{"prompt": 3}',
        '{"prompt": "zebra", "seed": -1}',
        '{"prompt": "zebra"}',
        "x" * 10_001,
    )
    ended = run(*SAMPLE, "-", stdin="\n".join(lines).encode())
    assert (ended.code, ended.err) == (4, "")
    assert [line.get("prompt") for line in ended.results[:2]] == ["a red circle", "zebra"]
    assert [line["error"].split(":")[0] for line in ended.results[2:]] == [
        f"standard input, line {number}" for number in (2, 3, 4, 6)
    ]


def test_missing_images_are_failed_items(run, files):
    for words in (RECONSTRUCT, (*RERANK, "--prompt", "x")):
        ended = run(*words, "-", stdin=f'{{"path": "gone.png"}}\n{files}/good.png\n'.encode())
        assert (ended.code, ended.err) == (4, "")
        errors = [line["error"] for line in ended.results if "error" in line]
        assert len(errors) == 1
        assert "no file 'gone.png'" in errors[0]


def test_invalid_rerank_prompts(run, tmp_path):
    Path("prompts.jsonl").write_text('{"prompt": "zebra"}\n{"prompt": null}\n')
    ended = run(*RERANK, "@good.png", "--prompts", "prompts.jsonl")
    assert [("score" in line, "error" in line) for line in ended.results] == [(True, False), (False, True)]
    assert ended.code == 4


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"", "standard input is empty"),
        (b"\n \n", "standard input is empty"),
        (bytes(range(256)) * 9, "is it a text file?"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "text"),
        ("zebra".encode("utf-16"), "UTF-16"),
        (b"\xff\xfe\xfd", "UTF-"),
        (b"zebra \xe9", "not UTF-8"),
        (b"x" * (1 << 20), "longer than"),
        (b"{broken\n{as well\n", "line 1: not JSON"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [SAMPLE, RECONSTRUCT, RERANK, ("evaluate", "scenes", "--objects", "shapes", "-q")],
    ids=lambda words: words[0],
)
def test_empty_standard_input(run, tmp_path, command, stdin, message):
    ended = run(*command, "-", stdin=stdin)
    assert (ended.code, ended.out, one_line(ended.err)) == (3, "", True), ended.err
    assert message in ended.err
    assert tree(tmp_path) == {}


def test_wrong_sizes_fail_at_the_first_step(run):
    ended = run(*TRAIN, "data.size=17")
    assert (ended.code, one_line(ended.err)) == (3, True)
    assert "17x17 px do not divide by 2" in ended.err


def test_evaluation_stops_at_an_invalid_line(run, files):
    lines = f'{{"path": "{files}/good.png", "prompt": "{CAPTION}"}}\n{{broken\n'
    ended = run("evaluate", "scenes", "-", "--objects", "shapes", "-q", stdin=lines.encode())
    assert (ended.code, ended.out, one_line(ended.err)) == (3, "", True)
    assert "line 2" in ended.err
