import hashlib
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from dalle_cli.data import loader
from dalle_cli.data.check import preview
from dalle_cli.data.scenes import Scenes
from dalle_cli.data.scenes.grammar import held_out, parse
from dalle_cli.data.section import open_source
from dalle_cli.images import decode
from dalle_cli.text.learn import learn
from tests.cli.conftest import one_line

SHAPES = ("--objects", "shapes", "--size", "16")


def digests(folder):
    """SHA-256 of every file below a folder, by its name."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def save_image(path, color="red", size=(40, 30), caption=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)


@pytest.mark.parametrize("layout", ["folder", "shards"])
def test_written_scenes_equal_the_source(dalle, tmp_path, layout):
    ended = dalle(
        "data",
        "scenes",
        "--out",
        "out",
        *SHAPES,
        "--num-samples",
        25,
        "--per-shard",
        10,
        "--format",
        layout,
        "--seed",
        3,
    )
    assert ended.result["samples"] == 25
    written, _ = open_source({"type": layout, "path": str(tmp_path / "out"), "size": 16})
    drawn = Scenes(size=16, objects="shapes", seed=3)
    places = [(block, index) for block, size in enumerate(written.blocks) for index in range(size)]
    assert len(places) == 25
    for number, (block, index) in enumerate(places):
        ours, theirs = drawn.read(0, number), written.read(block, index)
        texts = theirs["text"]
        assert (texts if isinstance(texts, str) else texts[0]) == ours["text"]
        assert np.array_equal(np.asarray(theirs["image"]), ours["image"])
    assert written.__dict__.get("problems", []) == []


@pytest.mark.parametrize("layout", ["folder", "shards"])
def test_bytes_depend_on_the_seed_only(dalle, tmp_path, layout):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        dalle("data", "scenes", "--out", name, *SHAPES, "--num-samples", 12, "--format", layout, "--seed", seed)
    first, second, other = (digests(tmp_path / name) for name in "abc")
    assert first == second
    assert set(first) == set(other)
    assert sum(first[name] != other[name] for name in first) >= len(first) / 2


def test_shards_have_the_layout_of_img2dataset(dalle, tmp_path):
    dalle("data", "scenes", "--out", "out", *SHAPES, "--num-samples", 5, "--per-shard", 3, "--format", "shards")
    assert sorted(os.listdir(tmp_path / "out")) == ["00000.tar", "00000_stats.json", "00001.tar", "00001_stats.json"]
    with tarfile.open(tmp_path / "out" / "00001.tar") as tar:
        names = [f"{key}.{kind}" for key in ("000010000", "000010001") for kind in ("png", "txt", "json")]
        assert tar.getnames() == names
        assert {member.mtime for member in tar} == {0}
        facts = json.load(tar.extractfile("000010000.json"))
        assert facts["caption"] == tar.extractfile("000010000.txt").read().decode()
        assert (facts["key"], facts["width"], facts["height"]) == ("000010000", 16, 16)
    assert json.loads((tmp_path / "out" / "00001_stats.json").read_text())["successes"] == 2


def test_held_out_scenes(dalle, tmp_path):
    dalle("data", "scenes", "--out", "out", *SHAPES, "--num-samples", 15, "--held-out")
    object_set = Scenes(size=16, objects="shapes").object_set
    captions = [file.read_text() for file in (tmp_path / "out").glob("*.txt")]
    assert len(captions) == 15
    assert all(held_out(parse(caption, object_set)) for caption in captions)


def test_existing_folder_is_kept(dalle, tmp_path):
    (tmp_path / "out").mkdir()
    ended = dalle("data", "scenes", "--out", "out", *SHAPES, "--num-samples", 3)
    assert (ended.code, one_line(ended.err)) == (73, True)
    assert os.listdir(tmp_path / "out") == []
    (tmp_path / "link").symlink_to("nowhere")
    assert dalle("data", "scenes", "--out", "link", *SHAPES, "--num-samples", 3).code == 73


@pytest.mark.parametrize(("error", "code"), [(OSError("disk full"), 1), (KeyboardInterrupt(), 130)])
def test_interrupted_write_leaves_nothing(dalle, tmp_path, monkeypatch, error, code):
    read = Scenes.read

    def failing(self, block, index, with_image=True):
        if index == 7:
            raise error
        return read(self, block, index, with_image)

    monkeypatch.setattr(Scenes, "read", failing)
    ended = dalle("data", "scenes", "--out", "new/out", *SHAPES, "--num-samples", 10, "--format", "shards", "-q")
    assert ended.code == code
    assert os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize(
    "words", [("--num-samples", 0), ("--size", 4), ("--objects", "letters"), ("--format", "zip"), ("--per-shard", 0)]
)
def test_wrong_options_of_scenes(dalle, tmp_path, words):
    assert dalle("data", "scenes", "--out", "out", *words).code == 2
    assert os.listdir(tmp_path) == []


def test_good_folder(dalle, tmp_path):
    for number in range(6):
        save_image(
            tmp_path / f"photos/{number}.png", (number, 0, 0), (40 + 40 * number, 300), f"a red picture {number}"
        )
    ended = dalle("data", "check", "photos")
    assert ended.code == 0
    found = ended.result
    assert (found["path"], found["type"], found["samples"], found["good"]) == ("photos", "folder", 6, 6)
    assert [count for *_, count in found["sides"] if count] == [1, 2, 3]
    shown = dalle("data", "check", "photos/", terminal=True).out.splitlines()
    assert "shorter side        32-63: 1, 64-127: 2, 128-255: 3 (px)" in shown
    assert "length              4: 6 (words); longest 4" in shown or any("longest 4" in line for line in shown)


def test_bad_samples_are_listed(dalle, tmp_path):
    save_image(tmp_path / "photos/good.png", caption="good")
    (tmp_path / "photos/bad.png").write_bytes(b"no image")
    ended = dalle("data", "check", "photos")
    assert (ended.code, ended.err) == (4, "")
    assert ended.result["bad_samples"] == [["bad.png", "not an image"]]
    assert "bad: bad.png: not an image" in dalle("data", "check", "photos", terminal=True).out.splitlines()
    (tmp_path / "photos/good.png").write_bytes(b"no image either")
    ended = dalle("data", "check", "photos")
    assert (ended.code, ended.result["good"]) == (3, 0)
    assert ended.err == "dalle: none of the 2 samples can be used\n"


def test_control_characters_in_names_are_replaced(dalle, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/\x1b[31m.png").write_bytes(b"no image")
    shown = dalle("data", "check", "photos", terminal=True)
    assert "bad: ?[31m.png: not an image" in shown.out.splitlines()


def test_long_captions_are_counted(dalle, tmp_path):
    for number, caption in enumerate(("bbb", "bbbb", "bbbbb")):  # as many tokens as letters: nothing was merged
        save_image(tmp_path / f"photos/{number}.png", caption=caption)
    learn(["a"], 514, "clip").save(tmp_path / "words.json")
    words = ("data", "check", "photos", "--tokenizer", "words.json")
    found = dalle(*words, "--context-length", 6).result["captions"]  # with start and end
    assert (found["unit"], found["over_context"], found["longest"]) == ("tokens", 1, 5)
    assert dalle(*words, "--context-length", 7).result["captions"]["over_context"] == 0
    shown = dalle(*words, "--context-length", 6, terminal=True).out.splitlines()
    assert "over 6 tokens       1" in shown
    assert dalle(*words, "--context-length", 2).code == 2
    assert dalle("data", "check", "photos", "--context-length", 1).result["captions"]["over_context"] == 0


def test_tokenizer_of_a_checkpoint(dalle, tmp_path):
    import torch

    from dalle_cli import checkpoint

    save_image(tmp_path / "photos/0.png", caption="bbb")
    recipe = {"model": {"type": "clip"}}
    checkpoint.save(tmp_path / "with.safetensors", {"a": torch.zeros(1)}, recipe, learn(["a"], 514, "clip"))
    checkpoint.save(tmp_path / "without.safetensors", {"a": torch.zeros(1)}, recipe)
    words = ("data", "check", "photos", "--tokenizer")
    assert dalle(*words, "with.safetensors").result["captions"]["longest"] == 3
    for name in ("without.safetensors", "none.safetensors", "none.json"):
        ended = dalle(*words, name)
        assert (ended.code, one_line(ended.err)) == (3, True), name


def test_type_is_inferred_from_the_path(dalle, tmp_path):
    dalle("data", "scenes", "--out", "shards", *SHAPES, "--num-samples", 4, "--per-shard", 2, "--format", "shards")
    (tmp_path / "shards/00000.parquet").write_bytes(b"what failed, as img2dataset notes it")
    save_image(tmp_path / "nested/a/b/0.png", caption="deep")
    (tmp_path / "nested/readme.md").write_text("no data")
    save_image(tmp_path / "tables/0.png")
    table = "image,text\n0.png,a table\n"
    (tmp_path / "tables/pairs.csv").write_text(table)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/pairs.csv").write_text(table.replace("0.png", "../tables/0.png"))
    save_image(tmp_path / "hub/images/0.png")
    (tmp_path / "hub/metadata.jsonl").write_text('{"file_name": "images/0.png", "text": "hub"}\n')
    expected = {
        "shards": ("shards", 4),
        "shards/00000.tar": ("shards", 2),
        "shards/{00000..00001}.tar": ("shards", 4),
        "shards/*.tar": ("shards", 4),
        "nested": ("folder", 1),
        "tables/pairs.csv": ("table", 1),
        "rows": ("table", 1),
        "hub": ("folder", 1),
    }
    for path, wanted in expected.items():
        found = dalle("data", "check", path).result
        assert (found["type"], found["good"]) == wanted, path


def test_data_keys(dalle, tmp_path, monkeypatch):
    save_image(tmp_path / "0.png")
    (tmp_path / "pairs.csv").write_text("image,text,title\n0.png,one,one two three\n")
    found = dalle("data", "check", "data.caption_column=title", "pairs.csv").result
    assert found["captions"]["longest"] == 3
    assert dalle("data", "check", "data.type=scenes", "data.objects=shapes", "data.samples=5").result["samples"] == 5
    monkeypatch.setenv("DALLE_DATA", "pairs.csv")
    assert dalle("data", "check").result["captions"]["longest"] == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "DALLE_DATA"),
        (("nowhere",), 3, "'nowhere'"),
        (("empty",), 3, "no images, .tar files or tables in 'empty'"),
        (("empty", "other"), 2, "data.path is given twice"),
        (("empty", "caption=title"), 2, "data.caption=title"),
        (("empty", "data.type=folder", "data.caption_colum=x"), 2, "did you mean 'caption_column'?"),
        (("empty", "data.type=foldr"), 2, "did you mean 'folder'?"),
        (("data.type=folder",), 3, "data.path is not set"),
    ],
)
def test_wrong_usage(dalle, tmp_path, words, code, message):
    (tmp_path / "empty").mkdir()
    ended = dalle("data", "check", *words)
    assert (ended.code, ended.out, one_line(ended.err)) == (code, "", True)
    assert message in ended.err


def test_preview_equals_a_training_batch(dalle, tmp_path):
    for number in range(8):
        save_image(tmp_path / f"photos/{number}.png", (30 * number, 0, 0), caption=f"picture {number}")
    ended = dalle("data", "preview", "photos", "--out", "sheet.png", "-n", 5, "data.size=24", "data.crop=random")
    assert ended.result["path"] == "sheet.png"
    node = {"type": "folder", "path": "photos", "size": 24, "crop": "random"}
    shown = np.asarray(decode(tmp_path / "sheet.png"))
    assert np.array_equal(shown, np.asarray(preview(node, 5)))
    batch = next(loader.build({**node, "num_workers": 0}).train(5))
    first = ((batch["image"][0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    large = first.repeat(6, axis=0).repeat(6, axis=1)  # enlarged to 144 px
    assert np.array_equal(shown[8 : 8 + 144, 8 : 8 + 144], large)


def test_preview_keeps_files_without_overwrite(dalle, tmp_path):
    save_image(tmp_path / "photos/0.png", caption="one")
    (tmp_path / "sheet.png").write_text("mine")
    ended = dalle("data", "preview", "photos")
    assert (ended.code, one_line(ended.err)) == (73, True)
    assert (tmp_path / "sheet.png").read_text() == "mine"
    assert dalle("data", "preview", "photos", "--overwrite").code == 0
    assert decode(tmp_path / "sheet.png").width > 256
    assert dalle("data", "preview", "photos", "--out", "sheet.jpg").code == 2
    assert dalle("data", "preview", "photos", "--out", "new/sheet.png", "data.require_captions=false").code == 0


def test_preview_takes_the_data_keys_of_a_recipe(dalle, tmp_path):
    save_image(tmp_path / "photos/0.png", caption="one")
    result = dalle("data", "preview", "photos", "--recipe", "clip/tiny", "-n", 1, "data.crop=pad").result
    node = result["data"]
    assert (node["type"], node["path"], node["size"], node["crop"]) == ("folder", "photos", 32, "pad")
    assert "objects" not in node
    ended = dalle("data", "preview", "photos", "--recipe", "clip/tinny", "--overwrite")
    assert (ended.code, "did you mean" in ended.err) == (2, True)
    assert dalle("data", "preview", "--recipe", "systems/glide", "--overwrite").code == 2
