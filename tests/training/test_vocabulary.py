from pathlib import Path

import pytest

from dalle_cli.exits import Failure
from dalle_cli.registry import RecipeError
from dalle_cli.text import tokenizers
from dalle_cli.training import vocabulary

DATA = {"type": "scenes", "objects": "shapes", "size": 16, "samples": 5000}


def recipe(**learn):
    return {"tokenizer": {"type": "dalle"}, "learn": {"vocab_size": 540, "captions": 300, **learn}, "data": DATA}


def test_a_vocabulary_is_learned_from_captions_and_saved(tmp_path):
    seen = []
    path = tmp_path / "words.json"
    learned = vocabulary.learn(recipe(), path, False, print, lambda *progress: seen.append(progress))
    assert learned.vocab_size == 540
    back = tokenizers.build({"type": "dalle", "path": str(path)}, "tokenizer")
    assert back.encode("a red circle") == learned.encode("a red circle")
    assert len(learned.encode("a red circle")) < len("a red circle")
    assert ("captions", 300, 300) in seen
    assert seen[-1][0] == "merges"


def test_the_captions_are_spread_over_the_data():
    class Source:
        blocks = (60, 40)

        def read(self, block, index, with_image=True):
            assert not with_image
            return {"text": [f"{block}/{index}", "second"] if index % 2 else f"{block}/{index}"}

    found = [text for text in vocabulary.captions(Source(), 50) if text != "second"]
    assert len(set(found)) == 50
    assert {text.split("/")[0] for text in found} == {"0", "1"}
    assert len(list(vocabulary.captions(Source(), 1000))) == 150


def test_fewer_entries_than_asked_for_are_said(tmp_path):
    said = []
    learned = vocabulary.learn(recipe(vocab_size=5000, captions=50), tmp_path / "words.json", False, said.append)
    assert said == [f"only {learned.vocab_size} entries: no other pair occurs twice in 50 captions"]


def test_a_file_that_is_there_is_kept(tmp_path):
    path = tmp_path / "words.json"
    path.write_text("mine")
    with pytest.raises(Failure, match="use --overwrite"):
        vocabulary.learn(recipe(), path, False, print)
    assert path.read_text() == "mine"
    vocabulary.learn(recipe(), path, True, print)
    assert path.read_text() != "mine"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learn": {"vocab_size": 600, "captions": 0}}, r"learn\.captions: 0 is not at least 1"),
        ({"learn": {"sise": 600}}, r"learn\.sise"),
        ({"tokenizer": {"type": "dalle", "path": "x"}}, "expected only a type"),
        ({"tokenizer": {"type": "dall"}}, "did you mean 'dalle'"),
        ({"data": {"type": "scenes"}}, "data needs 'size'"),
    ],
)
def test_wrong_recipes_are_refused_before_anything_is_read(change, said):
    with pytest.raises(RecipeError, match=said):
        vocabulary.learn({**recipe(), **change}, Path("nowhere.json"), False, print)
