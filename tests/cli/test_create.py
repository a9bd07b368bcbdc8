import io
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.generate.metadata import read
from tests.cli.conftest import one_line
from tests.fixtures.miniatures import GRID, SIZE, noise


@pytest.fixture
def sample(dalle, tiny):
    """`dalle sample` with the tiny system."""

    def run(*words, **how):
        return dalle("sample", "--recipe", tiny.recipe, "--precision", "float32", *words, **how)

    return run


@pytest.fixture
def no_models(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(checkpoint, "load", fail)


def typed(monkeypatch, text):
    """Standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def drawn(path):
    return np.asarray(Image.open(path))


def test_images_are_files_and_lines(sample):
    ended = sample("a red circle", "zebra", "-n", "2", "--seed", "7", "--out", "new/folder")
    assert ended.code == 0
    assert [line["path"] for line in ended.results] == [
        "new/folder/000000-7-a-red-circle.png",
        "new/folder/000001-7-a-red-circle.png",
        "new/folder/000002-7-zebra.png",
        "new/folder/000003-7-zebra.png",
    ]
    for line in ended.results:
        assert drawn(line["path"]).shape == (SIZE, SIZE, 3)
        found = read(line["path"])["dalle"]
        assert (found["prompt"], found["seed"], found["sample_index"]) == (line["prompt"], 7, line["sample_index"])
    assert "4 generated, 4 written to new/folder" in ended.err
    assert sample("zebra", "-q").err == ""


def test_table_on_a_terminal(sample):
    ended = sample("a red circle", terminal=True)
    assert ended.out.splitlines()[0].split() == ["index", "seed", "path", "prompt"]
    assert "out/000000-0-a-red-circle.png  a red circle" in ended.out
    assert json.loads(sample("zebra", "--json", "--out", "lines", terminal=True).out)["prompt"] == "zebra"


def test_batch_size_changes_nothing(sample):
    one, many = (sample("a red circle", "zebra", "-n", "3", "--out", f"b{n}", "--batch-size", n) for n in (1, 6))
    for a, b in zip(one.results, many.results, strict=True):
        assert np.array_equal(drawn(a["path"]), drawn(b["path"]))


def test_rerank_writes_the_best_in_order(sample):
    ended = sample("a red circle", "zebra", "--rerank", "6", "--top", "3", "--sheet", "sheets/best.png")
    assert len(ended.results) == 6
    for lines in (ended.results[:3], ended.results[3:]):
        scores = [line["score"] for line in lines]
        assert scores == sorted(scores, reverse=True)
        assert len(set(scores)) == 3
        assert [read(line["path"])["dalle"]["result"]["score"] for line in lines] == scores
    assert Image.open("sheets/best.png").width > 3 * SIZE
    assert len(os.listdir("out")) == 6


def test_existing_files_are_refused_before_loading(sample, no_models, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "000000-0-zebra.png").write_text("mine")
    ended = sample("zebra")
    assert (ended.code, one_line(ended.err)) == (73, True)
    assert "--skip-existing, --overwrite or another --out" in ended.err
    assert (tmp_path / "out" / "000000-0-zebra.png").read_text() == "mine"
    assert sample("zebra", "--overwrite", "--skip-existing").code == 2


def test_skip_existing_generates_the_rest(sample):
    first = sample("a red circle", "-n", "3").results
    os.unlink(first[1]["path"])
    before = {line["path"]: os.stat(line["path"]).st_mtime_ns for line in (first[0], first[2])}
    again = sample("a red circle", "-n", "3", "--skip-existing")
    assert "1 written to out" in again.err
    assert again.results == [{**first[0], "skipped": True}, first[1], {**first[2], "skipped": True}]
    assert before == {path: os.stat(path).st_mtime_ns for path in before}
    replaced = sample("a red circle", "-n", "3", "--overwrite").results
    assert replaced == first
    assert before != {path: os.stat(path).st_mtime_ns for path in before}


def test_reproduce_is_bit_identical(sample, dalle):
    (line, *_) = sample("zebra", "-n", "2", "--seed", "5", "--temperature", "0.5", "--top-k", "9").results
    again = dalle("sample", "--reproduce", line["path"], "--out", "again", "--precision", "float32").result
    with open(line["path"], "rb") as one, open(again["path"], "rb") as two:
        assert one.read() == two.read()
    noise().save("other.png")
    ended = dalle("sample", "--reproduce", "other.png")
    assert (ended.code, one_line(ended.err)) == (3, True)


def test_keep_rows_keeps_image_tokens(sample, tiny):
    noise(4).save("half.png")
    results = sample("zebra", "-n", "2", "--image", "half.png", "--keep-rows", "3").results
    free = sample("zebra", "-n", "2", "--out", "free").results
    ended = [drawn(line["path"]).astype(int) for line in results]
    above = np.abs(ended[0] - ended[1])[: SIZE // 4]  # far enough from the row that differs for the decoder
    assert above.mean() < 0.1 * np.abs(ended[0] - ended[1])[-SIZE // 4 :].mean()
    assert not np.array_equal(ended[0], drawn(free[0]["path"]))


def test_lines_hold_seeds_and_fields(sample, monkeypatch, tmp_path):
    typed(monkeypatch, 'zebra\n\n{"prompt": "a red circle", "seed": 9, "id": ["x", 1]}\n')
    ended = sample("-")
    assert [(line["prompt"], line["seed"], line.get("id")) for line in ended.results] == [
        ("zebra", 0, None),
        ("a red circle", 9, ["x", 1]),
    ]
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    (line,) = sample("--prompts", "prompts.txt", "--seed", "9", "--out", "again").results
    assert np.array_equal(drawn(line["path"]), drawn(ended.results[1]["path"]))


def test_dry_run_writes_nothing(sample, no_models, tmp_path):
    ended = sample("zebra", "-n", "3", "--dry-run", "--out", "new", "--sheet", "sheets/x.png")
    assert (ended.code, ended.out) == (0, "")
    assert "1 prompts x 3 candidates, 3 of each kept: 3 files" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "no prompt: give one"),
        (("zebra", "--temperature", "-1"), 2, "temperature -1.0 is not between 0 and 100"),
        (("zebra", "--top-p", "0"), 2, "top-p 0.0 is not in (0, 1]"),
        (("zebra", "--top-k", "0"), 2, "top-k 0 is not at least 1"),
        (("zebra", "--image", "half.png", "--keep-rows", str(GRID)), 2, f"the image has {GRID} rows of tokens"),
        (("zebra", "--image", "half.png"), 2, "--image needs --keep-rows"),
        (("zebra", "--image", "none.png", "--keep-rows", "1"), 3, "--image none.png: missing file"),
        (("zebra", "--precision", "fp8"), 2, "--precision fp8: choose auto"),
        (("zebra", "--sheet", "x.jpg"), 2, "a sheet is a PNG"),
        (("zebra", "--recipe", "missing.yaml"), 3, "no checkpoint 'gone'"),
        (("zebra", "--recipe", "wrong.yaml"), 3, "holds a 'dvae', where a 'dalle' is needed"),
        (("zebra", "--recipe", "typo.yaml"), 2, "did you mean 'dvae'?"),
        (("zebra", "--recipe", "dale1"), 2, "did you mean 'dalle1'?"),
        (("zebra", "--recipe", "runs/none"), 3, "no checkpoint 'runs/none'"),
        (("zebra", "--rerank", "2", "--recipe", "missing.yaml"), 2, "name one with --reranker"),
        (("--prompts", "none.txt"), 3, "none.txt: No such file"),
        (('{"prompt": 3}',), 3, "'prompt' must be text, not 3"),
        (('{"prompt": "x", "seed": -1}',), 3, "'seed' must be an integer"),
    ],
)
def test_mistakes_are_one_line_with_exit_code(sample, tiny, tmp_path, words, code, said):
    noise().save(tmp_path / "half.png")
    for name, parts in (
        ("missing", "transformer: gone"),
        ("wrong", f"transformer: {tiny.dvae}"),
        ("typo", f"transformer: {tiny.dalle}, dvea: {tiny.dvae}"),
    ):
        (tmp_path / f"{name}.yaml").write_text(f"system: {{type: dalle1}}\nparts: {{{parts}}}\n")
    ended = sample(*words)
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert one_line(ended.err)
    assert said in ended.err
    assert not list(tmp_path.glob("out/*"))


def test_transformer_checkpoint_is_a_system(dalle, tiny, tmp_path):
    (tmp_path / "checkpoints" / "mine").mkdir(parents=True)
    shutil.copy(tiny.dalle, tmp_path / "checkpoints" / "mine" / "model.safetensors")
    assert dalle("sample", "zebra", "--recipe", "mine").result["path"] == "out/000000-0-zebra.png"


def test_pipes_of_commands(tiny, tmp_path):
    command = f"{sys.executable} -m dalle_cli"
    lines = 'a red circle\n{"prompt": "zebra", "id": 7}\n'
    pipe = f"{command} sample - -n 3 -q --recipe {tiny.recipe} | {command} rerank --top 2 - -q --model {tiny.clip}"
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}

    def run(text):
        options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        return subprocess.run(["bash", "-c", f"set -o pipefail; {text}"], input=lines, **options)

    ended = run(pipe)
    assert (ended.returncode, ended.stderr) == (0, "")
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [(line["prompt"], line.get("id")) for line in found] == [("a red circle", None)] * 2 + [("zebra", 7)] * 2
    assert [line["score"] for line in found[2:]] == sorted((line["score"] for line in found[2:]), reverse=True)
    assert all((tmp_path / line["path"]).is_file() for line in found)
    closed = run(f"{command} sample 'a b' 'b c' c d -n 8 -q --batch-size 1 --recipe {tiny.recipe} --out many | true")
    assert (closed.returncode, closed.stderr) == (128 + signal.SIGPIPE, "")
    assert len(os.listdir(tmp_path / "many")) < 32


def test_batch_size_is_a_number_or_auto(dalle, tiny):
    for size in ("auto", 3):
        assert dalle("sample", "zebra", "-n", 2, "--recipe", tiny.recipe, "--batch-size", size, "--out", size).code == 0
    for size in ("0", "-1", "many", "1.5"):
        ended = dalle("sample", "zebra", "--recipe", tiny.recipe, "--batch-size", size, "--dry-run")
        assert ended.code == 2
        assert "expected auto or a positive integer" in " ".join(ended.err.replace("│", " ").split())


def test_diffusion_options(dalle, glide):
    words = ("sample", "a red circle", "--recipe", glide.recipe, "--precision", "float32", "-q")
    more = (
        "--steps",
        "4",
        "--sampler",
        "dpm++",
        "--guidance-scale",
        "1.5",
        "--guidance",
        "cfg",
        "--denoising-strip",
        "strip.png",
    )
    ended = dalle(*words, *more)
    assert ended.code == 0, ended.err
    assert Image.open("strip.png").size == (4 * 136 + 8, 136 + 8)
    options = read(ended.result["path"])["dalle"]["options"]
    assert (
        options.items()
        >= {"steps": "4", "sampler": "dpm++", "guidance_scale": 1.5, "guidance": "cfg", "up_steps": "3"}.items()
    )
    for wrong in (
        ("--steps", "many"),
        ("--sampler", "euler"),
        ("--guidance", "hope"),
        ("--eta", "2"),
        ("--top-k", "3"),
    ):
        refused = dalle(*words, *wrong, "--out", "x")
        assert (refused.code, one_line(refused.err)) == (2, True), wrong


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("prompts.txt",), 3, "'prompts.txt' is a file: give --prompts prompts.txt"),
        (("gone.txt",), 3, "no file 'gone.txt'"),
        (("cat.png",), 3, "give --reproduce cat.png"),
        (("a", "cat"), 3, '2 prompts of one word each: put quotes around a prompt ("a cat")'),
        (("a cat", "--out", "x.png"), 2, "--out x.png: --out is a folder"),
        (("a cat", "--rerank", "2", "--top", "3"), 2, "--top 3 exceeds the 2 candidates of --rerank"),
        (("a cat", "--reranker", "starter/clip"), 2, "--reranker needs --rerank N"),
    ],
)
def test_words_that_are_no_prompts_are_refused(dalle, tiny, tmp_path, words, code, message):
    (tmp_path / "prompts.txt").write_text("a cat\n")
    noise().save(tmp_path / "cat.png")
    ended = dalle("sample", *words, "--recipe", tiny.recipe)
    assert (ended.code, one_line(ended.err)) == (code, True), ended.err
    assert message in ended.err


def test_another_prompt_is_not_mixed_into_a_folder(sample, tmp_path):
    assert sample("a red circle").code == 0
    ended = sample("zebra")
    assert (ended.code, one_line(ended.err)) == (73, True), ended.err
    assert "out holds images of another run (000000-0-a-red-circle.png): use another --out" in ended.err
    assert sample("zebra", "--skip-existing").code == 0
    assert sample("zebra", "--seed", "1").code == 0
    assert len(os.listdir(tmp_path / "out")) == 3


def test_several_rerankers_are_averaged(sample, tiny):
    words = ("a red circle", "--rerank", "4")
    ended = sample(*words, "--reranker", tiny.clip)
    assert f"candidates are ranked by {tiny.clip} (--reranker)" in ended.err
    assert sample(*words, "--out", "own").result["score"] == ended.result["score"]
    pair = sample(*words, "--out", "b", "--reranker", tiny.clip, "--reranker", "starter/clip")
    assert f"{tiny.clip}, starter/clip" in pair.err


@pytest.mark.timeout(180)
def test_processes_write_the_same_files_and_keep_exit_codes(tiny, tmp_path):
    command = [sys.executable, "-m", "dalle_cli", "sample", "-", "-n", "2", "--precision", "float32"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}

    def run(*words):
        options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        return subprocess.run(
            [*command, *words, "--recipe", tiny.recipe], input="a red circle\nzebra\n", check=False, **options
        )

    assert run("--out", "one", "-q").returncode == 0
    two = run("--out", "two", "-q", "--processes", "2")
    assert (two.returncode, len(two.stdout.splitlines())) == (0, 4), two.stderr
    for path in (tmp_path / "one").iterdir():
        assert np.array_equal(drawn(path), drawn(tmp_path / "two" / path.name))
    again = run("--out", "two", "--processes", "2")
    assert (again.returncode, again.stderr.count("\n"), again.stdout) == (73, 1, ""), again.stderr
