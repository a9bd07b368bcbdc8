import csv
import importlib
import json
import pickle
import sys

import pytest

from dalle_cli.data.source import BadSample, DataError
from dalle_cli.data.table import Table

from .conftest import colour_of, number_of, picture

CAPTIONS = ["plain", 'with "quotes", and commas', "two\nlines", "tab\there", "Füße 🐾", ""]


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "img").mkdir()
    for number in range(len(CAPTIONS)):
        (tmp_path / "img" / f"{number}.png").write_bytes(picture(colour_of(number)))
    return tmp_path


def contents(source) -> list:
    samples = [source.read(block, index) for block, size in enumerate(source.blocks) for index in range(size)]
    return [(number_of(sample["image"]), sample["text"]) for sample in samples]


def write_rows(path, rows, delimiter=",", encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return str(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t"), ("CSV", ",")])
def test_csv_and_tsv(pictures, suffix, delimiter, encoding):
    rows = [["filepath", "title"], *([f"img/{number}.png", text] for number, text in enumerate(CAPTIONS))]
    source = Table(write_rows(pictures / f"t.{suffix}", rows, delimiter, encoding))
    assert source.blocks == [6]
    assert contents(source) == list(enumerate(CAPTIONS))
    assert source.read(0, 3)["key"] == "img/3.png"
    assert contents(pickle.loads(pickle.dumps(source))) == contents(source)


def test_json_lines(pictures):
    lines = [json.dumps({"file_name": f"img/{number}.png", "text": text}) for number, text in enumerate(CAPTIONS)]
    (pictures / "t.jsonl").write_text("\ufeff" + lines[0] + "\n\n" + "\r\n".join(lines[1:]), encoding="utf-8")
    assert contents(Table(str(pictures / "t.jsonl"))) == list(enumerate(CAPTIONS))


def test_json_lines_with_lists_broken_lines_and_missing_fields(pictures):
    lines = ['{"image": "img/0.png"}', "{broken", '{"image": "img/1.png", "text": ["a", "b"]}', "[]", '{"text": "c"}']
    (pictures / "t.jsonl").write_text("\n".join(lines))
    source = Table(str(pictures / "t.jsonl"))
    assert [source.read(0, index)["text"] for index in (0, 2)] == ["", ["a", "b"]]
    for index, reason in ((1, "row cannot be read"), (3, "row cannot be read: not a JSON object"), (4, "no image")):
        with pytest.raises(BadSample) as raised:
            source.read(0, index)
        assert raised.value.reason.startswith(reason)
        assert raised.value.key == f"t.jsonl/0/{index}"


def test_paths_are_relative_to_the_table_or_absolute(pictures, monkeypatch):
    monkeypatch.chdir("/")
    rows = [["path", "caption"], [str(pictures / "img" / "2.png"), "x"], ["img/1.png", "y"]]
    assert contents(Table(write_rows(pictures / "t.csv", rows))) == [(2, "x"), (1, "y")]


def test_named_columns_and_keys(pictures):
    rows = [["key", "text", "photo", "about"], ["k1", "no", "img/1.png", "yes"]]
    sample = Table(write_rows(pictures / "t.csv", rows), image_column="photo", caption_column="about").read(0, 0)
    assert (sample["key"], sample["text"]) == ("k1", "yes")


def test_rows_that_are_too_short_or_point_nowhere(pictures):
    rows = [["image", "text"], ["img/0.png"], [], ["", "x"], ["img/none.png", "x"]]
    source = Table(write_rows(pictures / "t.csv", rows))
    assert source.blocks == [3]
    assert source.read(0, 0)["text"] == ""
    for index, reason in ((1, "no image"), (2, "missing file")):
        with pytest.raises(BadSample, match=reason):
            source.read(0, index)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_column": "fotos"}, r"data\.image_column: .*t\.csv has no column 'fotos' \(did you mean 'foto'\?\)"),
        ({}, r"t\.csv: which column is the image\? Say data\.image_column=; its columns: foto, words"),
        ({"image_column": "foto"}, r"which column is the caption\? Say data\.caption_column="),
    ],
)
def test_columns_that_are_not_there(pictures, options, message):
    path = write_rows(pictures / "t.csv", [["foto", "words"], ["img/0.png", "x"]])
    with pytest.raises(DataError, match=message):
        Table(path, **options)


def test_tables_that_are_none(tmp_path):
    write_rows(tmp_path / "empty.csv", [["image", "text"]])
    with pytest.raises(DataError, match="no rows in"):
        Table(str(tmp_path / "empty.csv"))
    (tmp_path / "t.xlsx").write_bytes(b"")
    with pytest.raises(DataError, match=r"is not a table; use one of \.csv"):
        Table(str(tmp_path / "t.xlsx"))
    (tmp_path / "open.csv").write_text('image,text\na.png,"never closed\n' + "x" * 200_000)
    with pytest.raises(DataError, match=r"row 2 cannot be read .*every quote closed"):
        Table(str(tmp_path / "open.csv"))


def test_a_folder_of_tables_is_several_blocks(pictures):
    for number in range(3):
        write_rows(pictures / f"{number}.csv", [["image", "text"], [f"img/{number}.png", str(number)]])
    source = Table(str(pictures))
    assert source.blocks == [1, 1, 1]
    assert contents(source) == [(0, "0"), (1, "1"), (2, "2")]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"^Parquet tables need pyarrow: pip install 'dalle\[parquet\]'$"):
        Table(str(tmp_path / "t.parquet"))


def parquet(path, columns, rows_per_group=2):
    pyarrow = pytest.importorskip("pyarrow", reason="the optional dalle[parquet] is not installed")
    write_table = importlib.import_module("pyarrow.parquet").write_table
    write_table(pyarrow.table(columns), path, row_group_size=rows_per_group)
    return str(path)


def test_parquet_of_bytes(tmp_path):
    columns = {
        "key": [f"{number:09d}" for number in range(5)],
        "jpg": [picture(colour_of(number)) for number in range(5)],
        "txt": [f"number {number}" for number in range(4)] + [None],
        "width": [16] * 5,
    }
    source = Table(parquet(tmp_path / "00000.parquet", columns))
    assert source.blocks == [2, 2, 1]
    assert source.window == 32
    again = pickle.loads(pickle.dumps(source))
    assert contents(again) == [(0, "number 0"), (1, "number 1"), (2, "number 2"), (3, "number 3"), (4, "")]
    assert source.read(1, 1)["key"] == "000000003"


def test_parquet_of_hugging_face(pictures):
    columns = {
        "image": [
            {"bytes": picture(colour_of(3)), "path": "cat.png"},
            {"bytes": None, "path": "img/2.png"},
            {"bytes": picture(colour_of(1)), "path": None},
            {"bytes": None, "path": None},
        ],
        "text": [["a", "b"], ["c"], [], ["d"]],
    }
    source = Table(parquet(pictures / "t.parquet", columns, 10))
    samples = [source.read(0, index) for index in range(3)]
    assert [number_of(sample["image"]) for sample in samples] == [3, 2, 1]
    assert [sample["text"] for sample in samples] == [["a", "b"], ["c"], []]
    assert [sample["key"] for sample in samples] == ["cat.png", "img/2.png", "t.parquet/0/2"]
    with pytest.raises(BadSample, match="no image"):
        source.read(0, 3)


def test_large_row_groups_are_mixed_in_small_windows(tmp_path, monkeypatch):
    monkeypatch.setattr("dalle_cli.data.table.GROUP_BYTES", 5000)
    columns = {"jpg": [bytes(range(256)) * 8] * 8, "txt": ["x"] * 8}
    assert 2 <= Table(parquet(tmp_path / "t.parquet", columns, 1)).window <= 16


def test_a_broken_parquet_file(tmp_path):
    pytest.importorskip("pyarrow", reason="the optional dalle[parquet] is not installed")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match="not a Parquet file"):
        Table(str(tmp_path / "t.parquet"))
