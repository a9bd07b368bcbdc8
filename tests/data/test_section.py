import pytest

from dalle_cli.data.section import Loading, check, infer_type, open_source, split
from dalle_cli.data.source import DataError
from dalle_cli.registry import RecipeError

FOLDER = {"type": "folder", "path": "x", "size": 64}


def test_common_keys_and_those_of_the_source_are_told_apart():
    node = {
        **FOLDER,
        "crop": "dvae",
        "flip": "true",
        "num_workers": "0",
        "max_bad_fraction": "0.1",
        "caption_column": "text",
    }
    loading, rest = split(node)
    assert loading == Loading(size=64, crop="dvae", flip=True, num_workers=0, max_bad_fraction=0.1)
    assert rest == {"type": "folder", "path": "x", "caption_column": "text"}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({**FOLDER, "flp": True}, r"^data\.flp: data 'folder' takes no 'flp' \(did you mean 'flip'\?\)$"),
        ({**FOLDER, "caption_colum": "x"}, r"^data\.caption_colum: .*\(did you mean 'caption_column'\?\)$"),
        ({**FOLDER, "at_least": 3}, r"^data\.at_least: data 'folder' takes no 'at_least'"),
        ({"type": "folder", "path": "x"}, r"^data: data needs 'size'$"),
        ({**FOLDER, "crop": "centre"}, r"^data\.crop: 'centre' is not one of center, random, "),
        ({**FOLDER, "size": "big"}, r"^data\.size: expected a whole number"),
        ({**FOLDER, "size": 0}, r"^data\.size: 0 is not between 1 and"),
        ({**FOLDER, "max_bad_fraction": 5}, r"^data\.max_bad_fraction: 5\.0 is not between 0 and 1$"),
        ({**FOLDER, "num_workers": -1}, r"^data\.num_workers: -1 is not between"),
        ({**FOLDER, "type": "fodler"}, r"^data\.type: no data 'fodler' \(did you mean 'folder'\?\)$"),
        (
            {"path": "x"},
            r"^data: expected a mapping with a type; one of embeddings, folder, image-tokens, .*shards, table$",
        ),
        (None, r"^data: expected a mapping with a type"),
    ],
)
def test_mistakes_are_named(node, message):
    with pytest.raises(RecipeError, match=message):
        check(node)


def mixture(*inner, **keys):
    return {"type": "mixture", "sources": list(inner), "weights": [1] * len(inner), "size": 16, **keys}


def test_checking_looks_at_no_data():
    check({**FOLDER, "path": "/nowhere"})
    check(mixture({"type": "folder", "path": "/nowhere"}, {"type": "scenes"}))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (mixture({"type": "folder", "pth": "x"}), r"^data\.sources\.0\.pth: .*\(did you mean 'path'\?\)"),
        (mixture({"type": "scenes"}, {"type": "folder", "size": 3}), r"^data\.sources\.1\.size: .*takes no 'size'"),
        (mixture({"type": "scenes"}, mixture()), r"^data\.sources\.1: a mixture in a mixture"),
        (mixture("scenes"), r"^data\.sources\.0: expected a mapping with a type"),
        ({"type": "mixture", "weights": [1], "size": 1}, r"^data\.sources: expected a list of data sources$"),
        ({**mixture({"type": "scenes"}), "weights": "x"}, r"^data\.weights\.0: expected a number"),
    ],
)
def test_mistakes_inside_mixtures_are_named(node, message):
    for act in (check, open_source):
        with pytest.raises(RecipeError, match=message):
            act(node)


def test_sources_are_told_size_limit_and_how_far_to_reduce(photos):
    node = {"type": "folder", "path": str(photos), "size": 64, "max_pixels": 1000}
    source, loading = open_source(node)
    assert (source.max_pixels, source.at_least, loading.size) == (1000, 128, 64)
    assert open_source(node, reduced=False)[0].at_least is None
    mixed, _ = open_source(mixture({"type": "folder", "path": str(photos)}, {"type": "scenes"}))
    assert [type(one).__name__ for one in mixed.sources] == ["Folder", "Scenes"]
    assert mixed.sources[0].at_least == 32
    assert mixed.sources[1].size == 16


@pytest.mark.parametrize("kind", ["folder", "shards", "table"])
def test_a_path_left_out_is_one_clear_line(kind):
    with pytest.raises(DataError, match=r"^data\.path is not set: .*DALLE_DATA"):
        open_source({"type": kind, "size": 8})


@pytest.mark.parametrize(
    ("files", "type_"),
    [
        (["a/b.png", "a/b.txt"], "folder"),
        (["metadata.csv", "x.tar"], "folder"),
        (["00000.tar", "00000.parquet"], "shards"),
        (["pairs.csv"], "table"),
        ([".hidden.tar", "b.jpg"], "folder"),
    ],
)
def test_type_is_inferred_from_a_folder(tmp_path, files, type_):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert infer_type(str(tmp_path)) == type_


@pytest.mark.parametrize(("name", "type_"), [("x/{000..009}.tar", "shards"), ("pairs.tsv", "table")])
def test_type_is_inferred_from_a_file_name(name, type_):
    assert infer_type(name) == type_


def test_nothing_to_infer_a_type_from_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"no images, \.tar files or tables"):
        infer_type(str(tmp_path))
    with pytest.raises(DataError, match=r"no folder, \.tar or table"):
        infer_type("photos.zip")
