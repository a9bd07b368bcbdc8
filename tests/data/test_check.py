import os

import numpy as np
import pytest
from PIL import Image

from dalle_cli.data.check import examine, preview
from dalle_cli.data.source import DataError

from .conftest import colour_of, pairs, picture, write_tar


class Letters:
    """A tokenizer of single letters."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


def node(path, **keys):
    return {"type": "folder", "path": str(path), "size": 16, **keys}


def test_a_clean_folder(photos):
    report = examine(node(photos))
    assert (report["samples"], report["good"], report["bad"], report["problems"]) == (40, 40, {}, [])
    assert report["sides"][0] == [0, 32, 40]
    assert sum(count for _, _, count in report["sides"]) == 40
    assert report["captions"]["unit"] == "words"
    assert (report["captions"]["empty"], report["captions"]["longest"], report["captions"]["over_context"]) == (
        0,
        2,
        None,
    )
    assert {name: found["count"] for name, found in report["duplicates"].items()} == dict.fromkeys(
        ("keys", "images", "captions"), 0
    )


def test_everything_that_can_be_wrong(photos):
    (photos / "000.png").write_bytes(b"broken")
    (photos / "001.txt").unlink()
    (photos / "002.png").write_bytes((photos / "003.png").read_bytes())
    Image.new("RGB", (16, 16), colour_of(4)).save(photos / "005.png", compress_level=0)  # other bytes, same pixels
    (photos / "006.txt").write_text("number 7\nmore words than any other caption here")
    Image.new("RGB", (70, 90)).save(photos / "008.png")
    report = examine(node(photos), shown=5)
    assert (report["samples"], report["good"]) == (40, 38)
    assert report["bad"] == {"not an image": 1, "no caption": 1}
    assert report["bad_samples"] == [("000.png", "not an image"), ("001.png", "no caption")]
    assert report["captions"]["empty"] == 0
    assert report["captions"]["count"] == 39
    without = examine(node(photos, require_captions=False))  # for training that reads pictures alone
    assert (without["good"], without["captions"]["empty"]) == (39, 1)
    assert report["captions"]["longest"] == 7
    assert report["duplicates"]["images"] == {"count": 2, "keys": ["003.png", "005.png"]}
    assert report["duplicates"]["captions"] == {"count": 1, "keys": ["007.png"]}
    assert [64, 128, 1] in report["sides"]


def test_captions_against_a_context(photos):
    (photos / "000.txt").write_text("x" * 100)
    (photos / "001.txt").write_text("x" * 16)
    (photos / "002.txt").write_text("x" * 17)
    captions = examine(node(photos), tokenizer=Letters(), context=16)["captions"]
    assert (captions["unit"], captions["longest"], captions["over_context"]) == ("tokens", 100, 2)
    assert captions["lengths"][-1] == [17, None, 2]
    assert captions["lengths"][-2] == [15, 17, 1]
    assert sum(count for _, _, count in captions["lengths"]) == 40


def test_pictures_are_measured_at_full_size(tmp_path):
    Image.fromarray(np.zeros((600, 900, 3), np.uint8)).save(tmp_path / "a.jpg")
    assert [512, 1024, 1] in examine(node(tmp_path, require_captions=False))["sides"]


def test_problems_of_shards_and_repeated_keys(tmp_path):
    write_tar(tmp_path / "00000.tar", pairs(range(5)))
    write_tar(tmp_path / "00002.tar", pairs(range(4, 8)))
    path = write_tar(tmp_path / "00003.tar", pairs(range(10, 14)))
    os.truncate(path, path.stat().st_size // 3)
    report = examine({"type": "shards", "path": str(tmp_path), "size": 8})
    assert len(report["problems"]) == 2
    assert report["duplicates"]["keys"] == {"count": 1, "keys": ["000004"]}


def test_mixtures_are_examined_whole(photos, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes(picture(colour_of(5)))
    sources = [{"type": "folder", "path": str(folder)} for folder in (photos, other)]
    report = examine({"type": "mixture", "sources": sources, "weights": [1, 1], "size": 8, "require_captions": False})
    assert report["samples"] == 41
    assert report["duplicates"]["images"] == {"count": 1, "keys": ["a.png"]}


def test_progress_and_threads(photos):
    told = []
    alone = examine(node(photos), threads=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(number, 40) for number in range(1, 41)]
    assert examine(node(photos), threads=8) == alone


def test_preview_shows_what_training_sees(photos):
    page = preview(node(photos, crop="center"), count=4)
    assert page.size == (2 * 136 + 8, 2 * (128 + 15 + 8) + 8)
    assert len(page.getcolors() or []) > 4
    with pytest.raises(DataError):
        preview(node(photos / "none"))
