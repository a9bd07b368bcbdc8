import json
import os
import pickle
import tarfile

import pytest

from dalle_cli.data.shards import Shards
from dalle_cli.data.source import BadSample, DataError

from .conftest import number_of, pairs, picture, write_tar


def contents(source) -> list:
    """(key, number of the picture, caption) of every sample, or the reason why it is bad."""
    found = []
    for block, size in enumerate(source.blocks):
        for index in range(size):
            try:
                sample = source.read(block, index)
                found.append((sample["key"], number_of(sample["image"]), sample["text"]))
            except BadSample as error:
                found.append((error.key, error.reason))
    return found


def numbered(numbers) -> list:
    return [(f"{number:06d}", number, f"number {number}") for number in numbers]


def stats(path, successes) -> None:
    path.with_name(f"{path.stem}_stats.json").write_text(json.dumps({"count": successes + 5, "successes": successes}))


def test_shards_of_img2dataset(tmp_path):
    for shard in range(3):
        path = write_tar(tmp_path / f"{shard:05d}.tar", pairs(range(10 * shard, 10 * shard + 5)))
        stats(path, 5)
    source = Shards(str(tmp_path))
    assert source.blocks == [5, 5, 5]
    assert source.problems == []
    assert contents(source) == numbered([*range(5), *range(10, 15), *range(20, 25)])
    assert contents(pickle.loads(pickle.dumps(source))) == contents(source)


def test_counting_without_statistics_and_with_wrong_ones(tmp_path):
    for shard in range(4):
        write_tar(tmp_path / f"{shard:05d}.tar", pairs(range(shard + 1)))
    (tmp_path / "00000_stats.json").write_text("{broken")
    (tmp_path / "00001_stats.json").write_text('{"successes": "many"}')
    (tmp_path / "00002_stats.json").write_text("[1]")
    assert Shards(str(tmp_path)).blocks == [1, 2, 3, 4]


def test_statistics_that_promise_too_much_give_bad_samples(tmp_path):
    path = write_tar(tmp_path / "00000.tar", pairs(range(2)))
    stats(path, 3)
    source = Shards(str(path))
    assert contents(source) == [*numbered(range(2)), ("00000.tar/2", "shard shorter than its _stats.json says")]


def test_holes_are_reported(tmp_path):
    for shard in (0, 2):
        write_tar(tmp_path / f"{shard:05d}.tar", pairs([shard]))
    source = Shards(str(tmp_path / "{00000..00003}.tar"))
    assert contents(source) == numbered([0, 2])
    assert source.problems == ["2 of 4 files are missing: 00001.tar, 00003.tar"]


@pytest.mark.parametrize("with_stats", [False, True])
@pytest.mark.parametrize("cut", [0.3, 0.55, 0.8, 0.99])
def test_the_whole_samples_of_a_truncated_tar_are_used(tmp_path, cut, with_stats):
    members = pairs(range(20))
    path = write_tar(tmp_path / "00000.tar", members)
    if with_stats:
        stats(path, 20)
    ends = []  # of the data of each caption, which is the second member of each pair
    with tarfile.open(path) as archive:
        ends = [member.offset_data + member.size for member in archive if member.name.endswith(".txt")]
    size = int((ends[-1] + 512) * cut)
    os.truncate(path, size)
    source = Shards(str(path))
    whole = sum(end <= size for end in ends)
    assert 0 < whole <= 20
    assert contents(source) == numbered(range(whole))
    assert source.problems == [f"00000.tar: cut short at byte {size}; the {whole} whole samples before it are used"]


def test_a_tar_damaged_in_the_middle(tmp_path):
    path = write_tar(tmp_path / "00000.tar", pairs(range(5)))
    with tarfile.open(path) as archive:
        third = archive.getmembers()[4].offset
    data = bytearray(path.read_bytes())
    data[third : third + 100] = b"?" * 100
    path.write_bytes(data)
    source = Shards(str(path))
    assert contents(source) == numbered(range(2))
    assert source.problems == [f"00000.tar: no tar header at byte {third}; the 2 whole samples before it are used"]


def test_one_bad_shard_among_good_ones(tmp_path):
    write_tar(tmp_path / "00000.tar", pairs([0]))
    (tmp_path / "00001.tar").write_bytes(b"<html>404</html>" * 100)
    (tmp_path / "00002.tar").write_bytes(b"")
    source = Shards(str(tmp_path))
    assert source.blocks == [1, 0, 0]
    assert len(source.problems) == 2


def test_nothing_usable_is_one_line(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + b"x" * 2000)
    with pytest.raises(DataError, match=r"a\.tar: is compressed, unpack it with `gunzip`; nothing in it is used$"):
        Shards(str(tmp_path))
    write_tar(tmp_path / "b.tar", [])
    with pytest.raises(DataError, match="no samples in"):
        Shards(str(tmp_path / "b.tar"))


def test_names_can_do_no_harm(tmp_path):
    inside = tmp_path / "shards"
    inside.mkdir()
    link = tarfile.TarInfo("000.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device = tarfile.TarInfo("001.jpg")
    device.type = tarfile.CHRTYPE
    hard = tarfile.TarInfo("002.png")
    hard.type, hard.linkname = tarfile.LNKTYPE, "../../x.png"
    members = [
        ("../../escape.png", picture()),
        ("../../escape.txt", b"up"),
        ("/absolute.png", picture()),
        ("/absolute.txt", b"root"),
        link,
        ("000.txt", b"linked"),
        device,
        hard,
    ]
    path = write_tar(inside / "x.tar", members)
    before = sorted(tmp_path.rglob("*"))
    source = Shards(str(path))
    keys = [(found[0], found[-1]) for found in contents(source)]
    assert keys == [("../../escape", "up"), ("/absolute", "root"), ("x.tar/000", "no image")]
    assert source.problems == ["x.tar: 3 members are links or devices and are ignored: 000.jpg, 001.jpg, 002.png"]
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "escape.png").exists()


def test_keys_end_at_the_first_dot_and_order_does_not_matter(tmp_path):
    members = [
        ("a.b.png", picture()),  # extension "b.png": not an image of key "a"
        ("deep.er/c.PNG", picture()),
        ("d.txt", b"later"),
        ("deep.er/c.txt", b"folder with a dot"),
        ("d.json", b"{}"),
        ("d.png", picture()),
        ("._d.png", b"left by a Mac"),
        ("README.md", b"hello"),
        ("e.png", picture()),
    ]
    source = Shards(str(write_tar(tmp_path / "x.tar", members)))
    assert [(found[0], found[2]) for found in contents(source)] == [
        ("deep.er/c", "folder with a dot"), ("d", "later"), ("e", "")
    ]  # fmt: skip


def test_duplicates_are_reported_and_the_first_counts(tmp_path):
    members = [*pairs([1, 2]), ("000001.png", picture("blue")), ("000001.txt", b"again")]
    source = Shards(str(write_tar(tmp_path / "x.tar", members)))
    assert contents(source) == numbered([1, 2])
    assert source.problems == [
        "x.tar: 2 members have the key and extension of an earlier one, which counts: 000001.png, 000001.txt"
    ]


def test_captions_from_json(tmp_path):
    fields = [{"caption": "one"}, {"caption": ["a", "b"]}, {"caption": None}, {"other": 1}, [1]]
    members = [
        member
        for number, field in enumerate(fields)
        for member in ((f"{number}.png", picture()), (f"{number}.json", json.dumps(field).encode()))
    ]
    members += [("5.png", picture()), ("5.json", b"{broken"), ("6.png", picture()), ("6.txt", b"not this one")]
    source = Shards(str(write_tar(tmp_path / "x.tar", members)), caption_column="caption")
    assert [source.read(0, index)["text"] for index in range(7)] == ["one", ["a", "b"], "", "", "", "", ""]


def test_captions_of_odd_bytes(tmp_path):
    texts = ["\ufeffÜber 🐈\r\nzwei  Zeilen\n".encode(), b"caf\xe9", b"\0", "e\u0301\u200d\u202e".encode()]
    members = [
        member
        for number, text in enumerate(texts)
        for member in ((f"{number}.png", picture()), (f"{number}.txt", text))
    ]
    source = Shards(str(write_tar(tmp_path / "x.tar", members)))
    found = [source.read(0, index)["text"] for index in range(4)]
    assert found == ["Über 🐈 zwei Zeilen", "caf\ufffd", "\0", "e\u0301\u200d\u202e"]


def test_bad_members_have_reasons(tmp_path):
    members = [
        ("a.jpg", b"no picture at all"),
        ("b.png", picture(size=(200, 200))),
        ("c.png", b"\0" * 9000),
        ("d.png", picture()),
        ("d.txt", b"w" * (1 << 21)),
    ]
    source = Shards(str(write_tar(tmp_path / "x.tar", members)), max_pixels=1000)
    assert [reason for _, reason in contents(source)] == [
        "not an image",
        "too many pixels: 200x200, at most 1000 (data.max_pixels)",
        "too many bytes",
        "caption too long",
    ]
    assert contents(source)[0][0] == "x.tar/a"


def test_a_shard_that_vanishes_gives_bad_samples(tmp_path):
    path = write_tar(tmp_path / "x.tar", pairs(range(2)))
    source = Shards(str(path))
    path.unlink()
    assert all("shard cannot be read" in reason for _, reason in contents(source))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(tmp_path, form):
    key = "/".join(["folder" * 5] * 5) + "/picture" if form == tarfile.USTAR_FORMAT else "日本" * 60 + "/" + "x" * 80
    source = Shards(str(write_tar(tmp_path / "x.tar", [(f"{key}.png", picture()), (f"{key}.txt", b"words")], form)))
    sample = source.read(0, 0)
    assert (sample["key"], sample["text"]) == (key, "words")
