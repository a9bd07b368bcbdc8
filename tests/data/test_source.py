import pickle
import random

import pytest

from dalle_cli.data.source import (
    BadSample,
    DataError,
    all_captions,
    braces,
    caption_text,
    captions,
    choose_caption,
    find_files,
)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def found(path) -> list[str]:
    return [name.rpartition("/")[2] for name in find_files(str(path), (".tar",))[0]]


def test_a_file_a_folder_a_glob(tmp_path):
    touch(tmp_path, "b.tar", "a.tar", "deep/c.tar", "a.txt", "[x]/d.tar")
    assert found(tmp_path / "a.tar") == ["a.tar"]
    assert sorted(found(tmp_path)) == ["a.tar", "b.tar", "c.tar", "d.tar"]
    assert found(tmp_path / "*.tar") == ["a.tar", "b.tar"]
    assert found(tmp_path / "[x]") == ["d.tar"]
    assert found(tmp_path / "**/c.tar") == ["c.tar"]


def test_brace_ranges_and_their_holes(tmp_path):
    touch(tmp_path, "00000.tar", "00001.tar", "00003.tar")
    files, problems = find_files(str(tmp_path / "{00000..00004}.tar"), (".tar",))
    assert [name[-9:] for name in files] == ["00000.tar", "00001.tar", "00003.tar"]
    assert problems == ["2 of 5 files are missing: 00002.tar, 00004.tar"]
    assert list(braces("{a,b}/{8..10}")) == ["a/8", "a/9", "a/10", "b/8", "b/9", "b/10"]
    with pytest.raises(DataError, match="more than 1000000 files"):
        find_files("{0..99999999999}", (".tar",))


def test_holes_in_the_numbering_of_a_folder(tmp_path):
    touch(tmp_path, "00000.tar", "00001.tar", "00004.tar")
    assert find_files(str(tmp_path), (".tar",))[1] == ["2 of 5 files are missing: 00002.tar, 00003.tar"]
    touch(tmp_path, "train.tar")
    assert find_files(str(tmp_path), (".tar",))[1] == []


def test_many_holes_are_counted_not_listed(tmp_path):
    touch(tmp_path, "0.tar", "9.tar")
    assert find_files(str(tmp_path), (".tar",))[1] == [
        "8 of 10 files are missing: 1.tar, 2.tar, 3.tar, 4.tar, 5.tar, ..."
    ]


def test_a_name_with_braces_that_exists_is_that_file(tmp_path):
    touch(tmp_path, "{1..2}.tar")
    assert found(tmp_path / "{1..2}.tar") == ["{1..2}.tar"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "data.path is not set: add data.path=PATH or set DALLE_DATA; data.type=scenes needs neither"),
        ("  ", "data.path is not set"),
        ("nowhere", r"no \.tar files at 'nowhere' \(relative to .+\)"),
        ("/nowhere", r"no \.tar files at '/nowhere'$"),
        ("{00..03}.tar", r"no \.tar files at"),
        ("pipe:cat x.tar", r"no \.tar files at 'pipe:cat x\.tar'"),
    ],
)
def test_nothing_there_is_one_clear_line(path, message):
    with pytest.raises(DataError, match=message) as raised:
        find_files(path, (".tar",))
    assert "\n" not in str(raised.value)


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path, "a.tar")
    assert found("~/a.tar") == ["a.tar"]


def test_bad_samples_cross_processes():
    error = pickle.loads(pickle.dumps(BadSample("truncated: 3 bytes", "a/b.jpg")))
    assert (error.reason, error.key, str(error)) == ("truncated: 3 bytes", "a/b.jpg", "a/b.jpg: truncated: 3 bytes")


def test_caption_text():
    assert caption_text("\ufeff Füße 🐾 \n".encode()) == "Füße 🐾"
    assert caption_text(b"caf\xe9") == "caf\ufffd"
    assert captions([" a ", None, "", "b"]) == ["a", "b"]
    assert captions(None) == ""
    assert captions(7) == "7"


@pytest.mark.parametrize(("choice", "text"), [("first", "one"), ("join", "one two three"), ("random", "one")])
def test_caption_is_chosen_of_several(choice, text):
    assert choose_caption(["one", "two", "three"], choice) == text
    assert choose_caption("only", choice) == "only"
    assert choose_caption([], choice) == ""


def test_random_caption_changes_with_the_seed():
    several = ["one", "two", "three"]
    assert {choose_caption(several, "random", random.Random(seed)) for seed in range(20)} == set(several)
    assert {choose_caption(several, "first", random.Random(seed)) for seed in range(20)} == {"one"}


def test_all_captions_are_those_that_training_may_see():
    assert all_captions(["one", " ", "two"], "random") == ["one", "two"]
    assert all_captions(["one", "two"], "first") == ["one"]
    assert all_captions("", "join") == []
