import io
import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from dalle_cli.exits import DONE, FAILED, PARTIAL, USAGE, WOULD_OVERWRITE, Failure
from dalle_cli.generate import outputs
from dalle_cli.generate.metadata import Origin, recall
from dalle_cli.generate.outputs import Outputs, Results, file_name, slug, table
from dalle_cli.generate.requests import GenerationRequest, PlannedImage, plan_images, read_requests

ORIGIN = Origin("sample", "tiny", {"steps": 2}, {})
RED = Image.new("RGB", (8, 8), "red")


@given(st.text(st.characters(exclude_categories=[])))
@example("../../etc/passwd")
@example("CON")
@example("lpt1.txt")
@example(".hidden")
@example("\ud800")
def test_slugs_are_safe_on_any_disk(text):
    name = slug(text)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert len(name) <= 40
    assert not re.fullmatch(r"con|prn|aux|nul|com\d|lpt\d", name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A red apple!", "a-red-apple"),
        ("Crème brûlée, straße", "creme-brulee-strasse"),
        ("ＦＵＬＬ 𝐁𝐎𝐋𝐃", "full-bold"),
        ("りんご", "image"),
        ("", "image"),
        ("aux", "the-aux"),
        ("x" * 39 + " y", "x" * 39),
        ("x" * 1000, "x" * 40),
    ],
)
def test_slugs_are_readable(text, name):
    assert slug(text) == name


def test_file_names():
    assert file_name(PlannedImage(3, 7, 0, GenerationRequest("a cat"))) == "000003-7-a-cat.png"
    assert (
        file_name(PlannedImage(1_234_567, 2**64 - 1, 0, GenerationRequest()))
        == "1234567-18446744073709551615-image.png"
    )
    assert (
        file_name(PlannedImage(0, 0, 0, GenerationRequest(None, None, {"image": "in/My Photo.jpg"})))
        == "000000-0-my-photo.png"
    )


@pytest.fixture
def items():
    return plan_images(
        [GenerationRequest("a cat", None, {"mood": "glad", "score": 0.1}), GenerationRequest("a dog", 7)], num_images=2
    )


def test_image_is_saved_with_result_and_origin(tmp_path, items):
    out = Outputs(tmp_path / "new" / "folder", items)
    assert out.todo == items
    result = out.save(items[1], RED, ORIGIN, tokens=256)
    assert result == {
        "index": 1,
        "path": str(tmp_path / "new/folder/000001-0-a-cat.png"),
        "prompt": "a cat",
        "seed": 0,
        "sample_index": 1,
        "tokens": 256,
        "mood": "glad",
    }
    assert os.listdir(tmp_path / "new/folder") == ["000001-0-a-cat.png"]
    with Image.open(result["path"]) as image:
        assert image.getpixel((0, 0)) == (255, 0, 0)
    assert recall(result["path"])[1].line == {"prompt": "a cat", "seed": 0, "sample_index": 1, "mood": "glad"}


def test_details_precede_passthrough_fields(tmp_path, items):
    out = Outputs(tmp_path, items)
    assert out.save(items[0], RED, ORIGIN, mood="sad", score=0.9)["mood"] == "sad"


def test_failed_images_have_no_path(tmp_path, items):
    result = Outputs(tmp_path, items).failed(items[2], ValueError("broken\n  mask"))
    assert result == {"index": 2, "prompt": "a dog", "seed": 7, "sample_index": 0, "error": "broken mask"}
    assert Outputs(tmp_path, items).failed(items[2], MemoryError())["error"] == "MemoryError"


def test_existing_files_are_refused(tmp_path, items):
    for item in items[:-1]:
        (tmp_path / file_name(item)).write_text("precious")
    with pytest.raises(Failure, match=r"0-a-cat.png, .*-a-cat.png, .*000002-7-a-dog.png already exist") as failure:
        Outputs(tmp_path, items)
    assert failure.value.code == WOULD_OVERWRITE
    assert "--skip-existing, --overwrite" in str(failure.value)
    with pytest.raises(Failure, match=r"a-cat.png already exists"):
        Outputs(tmp_path, items[:1])
    assert (tmp_path / file_name(items[0])).read_text() == "precious"
    assert Outputs(tmp_path, items[-1:]).todo == items[-1:]


def test_many_existing_files_are_counted(tmp_path):
    items = plan_images([GenerationRequest("x")], 10)
    for item in items:
        (tmp_path / file_name(item)).touch()
    with pytest.raises(Failure, match=r"000002-0-x.png and 7 more already exist"):
        Outputs(tmp_path, items)


def test_overwriting(tmp_path, items):
    Outputs(tmp_path, items).save(items[0], Image.new("RGB", (8, 8), "blue"), ORIGIN)
    out = Outputs(tmp_path, items, overwrite=True)
    assert out.todo == items
    with Image.open(out.save(items[0], RED, ORIGIN)["path"]) as image:
        assert image.getpixel((0, 0)) == (255, 0, 0)


def test_complete_files_are_skipped_and_reported(tmp_path, items):
    first = Outputs(tmp_path, items)
    done = first.save(items[0], RED, ORIGIN)
    cut = first.path(items[1])
    first.save(items[1], RED, ORIGIN)
    cut.write_bytes(cut.read_bytes()[:-5])
    out = Outputs(tmp_path, items, skip_existing=True)
    assert out.todo == items[1:]
    assert out.skipped == [{**done, "skipped": True}]


def test_temporary_files_of_a_killed_run_are_removed(tmp_path, items):
    for name in (f".{file_name(items[0])}.123.tmp", ".another.png.123.tmp"):
        (tmp_path / name).touch()
    Outputs(tmp_path, items)
    assert os.listdir(tmp_path) == [".another.png.123.tmp"]


def test_contradictory_options(tmp_path, items):
    with pytest.raises(Failure, match="contradict each other") as failure:
        Outputs(tmp_path, items, overwrite=True, skip_existing=True)
    assert failure.value.code == USAGE


def test_folders_that_cannot_be_written(tmp_path, items):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300), "/proc/nowhere"):
        with pytest.raises(Failure, match=f"--out {folder}: cannot write to this folder: .*") as failure:
            Outputs(folder, items)
        assert failure.value.code == FAILED
        assert "\n" not in str(failure.value)


def test_a_full_disk_stops_the_run(tmp_path, items, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    out = Outputs(tmp_path, items)
    monkeypatch.setattr(outputs, "save_png", full)
    with pytest.raises(Failure, match=r"cannot be written: No space left on device; .*--skip-existing"):
        out.save(items[0], RED, ORIGIN)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_lines_come_one_by_one_in_a_pipe(capsys):
    results = Results()
    results.report({"index": 0, "prompt": "りんご\u2028\x1b[2J", "score": float("nan"), "more": [{"x": float("inf")}]})
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.count("\n") == 1
    assert json.loads(out) == {"index": 0, "prompt": "りんご\u2028\x1b[2J", "score": None, "more": [{"x": None}]}
    assert results.finish() == DONE
    results.report({"index": 1, "error": "broken"})
    assert json.loads(capsys.readouterr().out)["error"] == "broken"
    assert results.finish() == PARTIAL
    assert capsys.readouterr().out == ""


def test_table_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    results = Results()
    results.report({"index": 0, "path": "out/a.png", "prompt": "a \x1b[2J cat", "seed": 7, "score": 0.123456})
    results.report({"index": 11, "path": "out/bbb.png", "prompt": "long " * 30, "seed": 7, "skipped": True})
    results.report({"index": 12, "prompt": "a dog", "seed": 7, "error": "the mask is no picture " * 3})
    assert terminal.getvalue() == ""
    assert results.finish() == PARTIAL
    assert terminal.getvalue().splitlines() == [
        "index  seed  skipped   score  path         prompt",
        "    0     7           0.1235  out/a.png    a  [2J cat",
        "   11     7  skipped          out/bbb.png  long long long long…",
        f"   12     7                                FAILED: {'the mask is no picture ' * 3}".rstrip(),
    ]


def test_lines_on_a_terminal_on_request(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    results = Results(as_json=True)
    results.report({"index": 0})
    assert terminal.getvalue() == '{"index": 0}\n'
    results.finish()
    assert terminal.getvalue() == '{"index": 0}\n'


def test_paths_are_never_cut():
    path = "a/long/folder/" * 20 + "x.png"
    assert path in table([{"path": path, "label": "cat"}], ("label", "path"), 40)
    assert table([{"error": "broken"}], ("path",), 40).splitlines()[1] == "FAILED: broken"


def test_terminals_without_unicode(monkeypatch):
    raw = io.BytesIO()
    terminal = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout", terminal)
    results = Results()
    results.report({"index": 0, "prompt": "りんご"})
    results.finish()
    assert raw.getvalue() == b"index  prompt\n    0  ???\n"


def test_no_standard_output(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(Failure, match="standard output is closed"):
        Results()


def test_results_of_one_command_are_requests_of_the_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def piped(**options):
        return read_requests(["-"], stdin=io.BytesIO(capsys.readouterr().out.encode()), **options)

    out, results = (
        Outputs("drawn", plan_images([GenerationRequest("a cat", None, {"mood": "glad"})], 3, seed=5)),
        Results(),
    )
    for item in out.todo[:2]:
        results.report(out.save(item, RED, ORIGIN))
    results.report(out.failed(out.todo[2], "broken"))

    ranked = sorted(piped(plain_field="path", file_fields=("path",)), key=lambda request: request.failed)
    for score, request in zip((0.1, 0.2), ranked):
        results.report({**request.line, "score": score})
    results.report(ranked[2].line)

    requests = piped(plain_field="image", file_fields=("image",))
    assert [request.failed for request in requests] == [False, False, True]
    varied = Outputs("varied", plan_images(requests[:2]))
    assert [varied.save(item, RED, ORIGIN) for item in varied.todo] == [
        {
            "index": i,
            "path": f"varied/00000{i}-5-a-cat.png",
            "prompt": "a cat",
            "seed": 5,
            "sample_index": i,
            "mood": "glad",
            "image": f"drawn/00000{i}-5-a-cat.png",
        }
        for i in range(2)
    ]


REPORT = """
import sys
from dalle_cli.exits import Failure
from dalle_cli.generate.outputs import Results
results = Results()
try:
    for i in range(100_000):
        results.report({"index": i, "prompt": "x" * 1000})
        sys.stderr.write("." if i % 1000 == 0 else "")
except Failure as failure:
    sys.exit(f"{failure} ({failure.code})")
"""


def test_closed_pipe_ends_quietly():
    command = [sys.executable, "-c", REPORT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert json.loads(process.stdout.readline())["index"] == 0
        process.stdout.close()
        assert set(process.stderr.read()) <= {ord(".")}
    assert process.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_full_standard_output():
    with open("/dev/full", "w") as full:
        ran = subprocess.run([sys.executable, "-c", REPORT], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.stderr == "standard output: No space left on device (1)\n"
    assert ran.returncode == 1
