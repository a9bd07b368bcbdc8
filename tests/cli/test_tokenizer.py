import pytest

from dalle_cli.data.scenes import Scenes
from dalle_cli.text import loading
from tests.cli.conftest import one_line

LEARN = ("train-tokenizer", "--recipe", "tiny", "learn.vocab_size=540", "learn.captions=300")


def test_vocabulary_is_learned(dalle, tmp_path):
    ended = dalle(*LEARN, "--out", "words.json")
    assert ended.code == 0
    learned = loading.load(tmp_path / "words.json")
    found = ended.result
    assert (found["path"], found["type"], found["vocab_size"], found["merges"]) == ("words.json", "dalle", 540, 28)
    assert (learned.kind, learned.vocab_size) == ("dalle", 540)
    assert 1 < found["tokens_per_caption"] < 0.7 * found["bytes_per_caption"]
    caption = Scenes(size=16, objects="shapes").read(0, 0)["text"]
    assert learned.decode(learned.encode(caption)) == caption


def test_terminal_output_and_progress(dalle):
    ended = dalle(*LEARN, "--out", "words.json", terminal=True)
    assert "vocab_size          540" in ended.out.splitlines()
    assert dalle(*LEARN, "--out", "again.json", "-q").err == ""


def test_fewer_entries_are_reported(dalle, tmp_path):
    (tmp_path / "photos").mkdir()
    from PIL import Image

    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"photos/{name}.png")
        (tmp_path / f"photos/{name}.txt").write_text("aa")
    ended = dalle(*LEARN, "--out", "words.json", "data.type=folder", "data.path=photos")
    assert ended.result["vocab_size"] == 513
    assert "only 513 entries" in ended.err
    assert "dropped objects" in ended.err  # the scenes' own keys


def test_files_are_kept_without_overwrite(dalle, tmp_path):
    (tmp_path / "words.json").write_text("mine")
    ended = dalle(*LEARN, "--out", "words.json")
    assert (ended.code, one_line(ended.err)) == (73, True)
    assert (tmp_path / "words.json").read_text() == "mine"
    assert dalle(*LEARN, "--out", "words.json", "--overwrite").code == 0
    assert loading.load(tmp_path / "words.json").vocab_size == 540


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("learn.vocab_sise=3",), 2, "did you mean 'vocab_size'?"),
        (("tokenizer.type=clp",), 2, "did you mean 'clip'?"),
        (("data.type=folder", "data.path=nowhere"), 3, "no folder 'nowhere'"),
        (("learn.vocab_size=3",), 2, "learn.vocab_size: 3 is less than 512"),
        (("learn.captions=0",), 2, "learn.captions"),
        (("model.width=3",), 2, "no section 'model'"),
    ],
)
def test_wrong_usage(dalle, tmp_path, words, code, message):
    ended = dalle("train-tokenizer", "--recipe", "tiny", "--out", "words.json", "-q", *words)
    assert (ended.code, ended.out) == (code, "")
    assert one_line(ended.err.splitlines(keepends=True)[-1])
    assert message in ended.err
    assert list(tmp_path.iterdir()) == []


def test_missing_data_is_explained(dalle):
    ended = dalle("train-tokenizer", "--recipe", "dalle1", "--out", "words.json")
    assert (ended.code, one_line(ended.err)) == (2, True)
    assert "data.path=" in ended.err
    assert "DALLE_DATA" in ended.err
