import gzip
import json
import shutil
import sys
from pathlib import Path

import pytest

from dalle_cli.registry import RecipeError
from dalle_cli.text import TextError, tokenizers, vocabulary

CLIP_LINES = ["i n", "t h", "in g</w>"]
GPT2_LINES = ["Ġ t", "h e", "Ġt he"]


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """No published vocabulary in the environment, in installed packages or in the Hugging Face cache."""
    for name in ("DALLE_CLIP_VOCAB", "DALLE_GPT2_VOCAB", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    elsewhere = {}
    for kind, known in vocabulary._PUBLISHED.items():
        folder = next(iter(known.packages.values()))
        elsewhere[kind] = known._replace(packages={"dalle_test_package": folder})
    monkeypatch.setattr(vocabulary, "_PUBLISHED", elsewhere)


def write(file: Path, lines: list[str], header: str = "#version: 0.2") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    data = "\n".join([header, *lines, ""]).encode()
    file.write_bytes(gzip.compress(data) if file.name.endswith(".gz") else data)
    return file


def read(kind: str, path: Path | str) -> list[str]:
    return tokenizers.build({"type": kind, "path": str(path)}).merges


@pytest.mark.parametrize(
    "name", ["bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt", "merges.txt", "own name"]
)
def test_clip_files_and_their_folders(tmp_path, name):
    file = write(tmp_path / name, CLIP_LINES, '"bpe_simple_vocab_16e6.txt#version: 0.2')
    assert read("clip", file) == CLIP_LINES
    assert read("dalle", file) == CLIP_LINES
    if name != "own name":
        assert read("clip", tmp_path) == CLIP_LINES


def test_no_more_of_clips_file_is_used_than_published_models_know(tmp_path, parity):
    text = gzip.decompress((parity / "bpe_simple_vocab_16e6.txt.gz").read_bytes())
    file = tmp_path / "vocabulary.txt"
    file.write_bytes(text)
    assert len(text.split(b"\n")) > 200_000
    assert len(read("clip", file)) == 48_894


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(("merges", "ids"), [("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json")])
def test_merges_beside_ids_by_any_of_their_names(tmp_path, merges, ids, ending):
    write(tmp_path / (merges + ending), GPT2_LINES)
    symbols = [*vocabulary.base_symbols(""), "Ġt", "he", "Ġthe", "<|endoftext|>"]
    data = json.dumps({symbol: i for i, symbol in enumerate(symbols)}).encode()
    beside = tmp_path / (ids + ending)
    beside.write_bytes(gzip.compress(data) if ending else data)
    for path in (tmp_path, tmp_path / (merges + ending), beside):
        assert read("glide", path) == GPT2_LINES


def test_ids_in_another_order_are_refused(tmp_path):
    write(tmp_path / "vocab.bpe", GPT2_LINES)
    symbols = [*vocabulary.base_symbols(""), "he", "Ġt", "Ġthe"]
    (tmp_path / "encoder.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}))
    with pytest.raises(TextError, match="'Ġt' another id than 256"):
        read("glide", tmp_path)


def test_the_published_pair_agrees(tmp_path, parity):
    for name in ("vocab.bpe.gz", "encoder.json.gz"):
        shutil.copy(parity / name, tmp_path / name)
    assert len(read("glide", tmp_path)) == 50_000


@pytest.mark.parametrize("as_pairs", [False, True])
def test_hugging_face_tokenizer_json(tmp_path, as_pairs):
    lines = [line.split(" ") for line in CLIP_LINES] if as_pairs else CLIP_LINES
    model = {"type": "BPE", "merges": lines, "end_of_word_suffix": "</w>", "vocab": {}}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))
    assert read("clip", tmp_path) == CLIP_LINES


def test_own_files_are_read_by_every_tokenizer_of_their_format(tmp_path, learned):
    for kind, tokenizer in learned.items():
        tokenizer.save(tmp_path / f"{kind}.json")
    assert read("dalle", tmp_path / "clip.json") == learned["clip"].merges
    assert read("clip", tmp_path / "dalle.json") == learned["dalle"].merges
    with pytest.raises(TextError, match=r"glide\.json: .* GPT-2.s format"):
        read("clip", tmp_path / "glide.json")
    with pytest.raises(TextError, match=r"clip\.json: .* CLIP.s format"):
        read("glide", tmp_path / "clip.json")


def test_text_files_of_the_other_format_are_refused(tmp_path):
    with pytest.raises(TextError, match="GPT-2's format"):
        read("clip", write(tmp_path / "gpt2.txt", GPT2_LINES))
    with pytest.raises(TextError, match="CLIP's format"):
        read("glide", write(tmp_path / "clip.txt", CLIP_LINES))


def test_starter_is_the_packaged_file(tmp_path, monkeypatch, learned):
    learned["clip"].save(tmp_path / "tokenizer.json")
    monkeypatch.setattr(vocabulary, "_STARTER", tmp_path / "tokenizer.json")
    assert read("clip", "starter") == learned["clip"].merges


@pytest.mark.parametrize(
    ("kind", "variable", "lines"), [("clip", "DALLE_CLIP_VOCAB", CLIP_LINES), ("glide", "DALLE_GPT2_VOCAB", GPT2_LINES)]
)
def test_published_is_found_through_the_environment(tmp_path, monkeypatch, kind, variable, lines):
    file = write(tmp_path / "somewhere" / "merges.txt", lines)
    for place in (file, file.parent):
        monkeypatch.setenv(variable, str(place))
        assert read(kind, "published") == lines
    monkeypatch.setenv(variable, str(tmp_path / "absent"))
    with pytest.raises(TextError, match="absent"):
        read(kind, "published")


@pytest.mark.parametrize(
    ("kind", "name", "lines"),
    [("clip", "bpe_simple_vocab_16e6.txt.gz", CLIP_LINES), ("glide", "tokenizer/vocab.bpe.gz", GPT2_LINES)],
)
def test_published_is_found_in_an_installed_package_that_is_not_imported(tmp_path, monkeypatch, kind, name, lines):
    package = tmp_path / "dalle_test_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TextError, match="not on this machine"):
        read(kind, "published")
    write(package / name, lines)
    assert read(kind, "published") == lines
    assert "dalle_test_package" not in sys.modules


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"])
@pytest.mark.parametrize(
    ("kind", "model", "lines"),
    [("clip", "openai--clip-vit-large-patch14", CLIP_LINES), ("glide", "gpt2", GPT2_LINES)],
)
def test_published_is_found_in_the_hugging_face_cache(tmp_path, monkeypatch, variable, kind, model, lines):
    inside = {"XDG_CACHE_HOME": "huggingface/hub", "HF_HOME": "hub", "HF_HUB_CACHE": ""}[variable]
    write(tmp_path / inside / f"models--{model}" / "snapshots" / "0a1b" / "merges.txt", lines)
    monkeypatch.setenv(variable, str(tmp_path))
    assert read(kind, "published") == lines


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("clip", ["github.com/openai/CLIP", "DALLE_CLIP_VOCAB", "dalle train-tokenizer"]),
        ("glide", ["glide-text2im", "DALLE_GPT2_VOCAB", "dalle train-tokenizer"]),
        ("dalle", ["ever published", "dalle train-tokenizer"]),
    ],
)
def test_an_absent_vocabulary_is_one_line_that_says_where_to_get_it(kind, words):
    with pytest.raises(TextError) as error:
        read(kind, "published")
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"#version: 0.2\na b c\n",
        b"#version: 0.2\na b\n\nc d\n",
        b"#version: 0.2\nzz zz\n",
        b"<!DOCTYPE html>\n<html>404</html>\n",
        b"{",
        b"{}",
        b'{"model": 3}',
        b'{"model": {"merges": [3]}}',
        b'{"type": "glide", "merges": "a b"}',
        b'{"type": "glide", "merges": [["a", "b"]]}',
        b'{"type": "other", "merges": []}',
        b'{"a":' * 100_000,
        gzip.compress(b"#version: 0.2\nh e\n", mtime=0)[:-12],
        b"\x1f\x8b\x08\x00broken",
        b"\x1f\x8b",
    ],
    ids=lambda content: repr(content[:24]),
)
def test_malformed_files_are_one_line_errors(tmp_path, content):
    file = tmp_path / "vocabulary"
    file.write_bytes(content)
    with pytest.raises((TextError, RecipeError)) as error:
        read("glide", file)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_malformed_ids_are_a_one_line_error(tmp_path):
    write(tmp_path / "vocab.bpe", GPT2_LINES)
    (tmp_path / "encoder.json").write_text("[]")
    with pytest.raises(TextError, match=r"encoder\.json: expected a mapping"):
        read("glide", tmp_path)


def test_a_zip_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "_LARGEST_FILE", 1 << 20)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"a b\n" * (1 << 20)))
    with pytest.raises(TextError, match="larger than any vocabulary"):
        read("glide", tmp_path / "bomb.gz")


@pytest.mark.parametrize("name", ["absent.json", "absent/folder"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(TextError, match=name.replace(".", r"\.")):
        read("clip", tmp_path / name)


def test_a_folder_without_a_vocabulary_says_what_was_looked_for(tmp_path):
    with pytest.raises(TextError, match=r"vocab\.bpe, merges\.txt"):
        read("clip", tmp_path)
