import json

import pytest

from dalle_cli.data.folder import Folder
from dalle_cli.data.source import BadSample, DataError

from .conftest import colour_of, number_of, picture


def keys(source) -> list[str]:
    return [source.read(0, index)["key"] for index in range(source.blocks[0])]


def test_pictures_and_captions_of_the_same_name(photos):
    source = Folder(str(photos))
    assert source.blocks == [40]
    sample = source.read(0, 7)
    assert (sample["key"], sample["text"], number_of(sample["image"])) == ("007.png", ["number 7"], 7)


def test_nested_folders_do_not_share_stems(tmp_path):
    for number, name in enumerate(("a/x", "b/x", "b/c.d/x", "x.y")):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(colour_of(number)))
        (tmp_path / f"{name}.txt").write_text(name)
    source = Folder(str(tmp_path))
    assert keys(source) == ["a/x.png", "b/c.d/x.png", "b/x.png", "x.y.png"]
    assert [source.read(0, index)["text"] for index in range(4)] == [["a/x"], ["b/c.d/x"], ["b/x"], ["x.y"]]
    assert [number_of(source.read(0, index)["image"]) for index in range(4)] == [0, 2, 1, 3]


def test_several_captions_odd_ones_and_none(photos):
    (photos / "000.txt").write_bytes("\ufeffa cat\r\n\n  eine Katze 🐈 \n".encode())
    (photos / "001.txt").write_bytes(b"caf\xe9")
    (photos / "002.txt").unlink()
    (photos / "003.txt").write_text(" \n ")
    source = Folder(str(photos))
    found = [source.read(0, index)["text"] for index in range(4)]
    assert found == [["a cat", "eine Katze 🐈"], ["caf\ufffd"], [], []]


def test_what_is_not_a_picture_is_a_bad_sample(photos):
    (photos / "000.txt").rename(photos / "notes.jpg")
    (photos / "dir.png").mkdir()
    source = Folder(str(photos))
    assert source.blocks == [41]
    with pytest.raises(BadSample) as raised:
        source.read(0, 40)
    assert (raised.value.key, raised.value.reason) == ("notes.jpg", "not an image")


def test_hidden_files_and_other_files_are_left_out(photos):
    (photos / ".hidden.png").write_bytes(picture())
    (photos / "._001.png").write_bytes(b"left by a Mac")
    (photos / ".cache").mkdir()
    (photos / ".cache" / "a.png").write_bytes(picture())
    (photos / "README.md").write_text("x")
    (photos / "UPPER.JPEG").write_bytes(picture(kind="JPEG"))
    assert [key for key in keys(Folder(str(photos))) if not key[:3].isdigit()] == ["UPPER.JPEG"]


def test_links_to_folders_are_followed_once(photos):
    (photos / "inner").mkdir()
    (photos / "inner" / "a.png").write_bytes(picture())
    (photos / "inner" / "loop").symlink_to(photos)
    (photos / "zlink").symlink_to(photos / "inner")
    found = keys(Folder(str(photos)))
    assert found.count("inner/a.png") == 1
    assert len(found) == 41


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_metadata(photos, suffix):
    if suffix == "jsonl":
        lines = [json.dumps({"file_name": f"{number:03d}.png", "text": f"told {number}"}) for number in (3, 1)]
        (photos / "metadata.jsonl").write_text("\n".join(lines))
    else:
        (photos / "metadata.csv").write_text('file_name,text\n003.png,told 3\n001.png,"told 1"\n')
    source = Folder(str(photos))
    samples = [source.read(0, index) for index in range(source.blocks[0])]
    assert [(sample["key"], sample["text"], number_of(sample["image"])) for sample in samples] == [
        ("003.png", "told 3", 3), ("001.png", "told 1", 1)
    ]  # fmt: skip


def test_metadata_with_other_columns(photos):
    (photos / "metadata.csv").write_text("image,caption\n003.png,told\n")
    assert Folder(str(photos), image_column="image", caption_column="caption").read(0, 0)["text"] == "told"
    with pytest.raises(DataError, match=r"data\.image_column: .* has no column 'file_name'"):
        Folder(str(photos))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "data.path is not set"),
        ("nowhere", r"no folder 'nowhere' \(relative to "),
        ("empty", r"no images \(\.jpg, \.png, \.webp, \.\.\.\) in 'empty' \(relative to "),
        ("tars", r"; for its \.tar files, data\.type=shards$"),
        ("file.csv", r"; for files, data\.type=shards or table$"),
    ],
)
def test_nothing_there_is_one_clear_line(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "0.tar").write_bytes(b"")
    (tmp_path / "file.csv").write_bytes(b"")
    with pytest.raises(DataError, match=message):
        Folder(name)
