import json
import pickle
import random

import numpy as np
import pytest

from dalle_cli.text import TextError, tokenizers
from dalle_cli.text.learn import learn
from dalle_cli.text.loading import from_state, load

KINDS = ["clip", "dalle", "glide"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_goes_through_json_and_rebuilds_the_tokenizer(learned, captions, kind):
    state = json.loads(json.dumps(learned[kind].state()))
    again = from_state(state)
    assert type(again) is type(learned[kind])
    assert again.vocab_size == learned[kind].vocab_size
    for caption in captions:
        assert again.encode(caption) == learned[kind].encode(caption)
    ids, mask = again.pack(captions, 24)
    expected_ids, expected_mask = learned[kind].pack(captions, 24)
    assert np.array_equal(ids, expected_ids)
    assert np.array_equal(mask, expected_mask)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_file_is_one_merge_a_line_and_loads(learned, tmp_path, kind):
    file = tmp_path / "new" / "tokenizer.json"
    learned[kind].save(file)
    assert load(file).merges == learned[kind].merges
    assert tokenizers.build({"type": kind, "path": str(file)}).merges == learned[kind].merges
    assert f'"{learned[kind].merges[0]}",' in file.read_text(encoding="utf-8").splitlines()
    assert [path.name for path in file.parent.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize("kind", KINDS)
def test_pack_marks_what_is_real_and_counts_what_it_cuts(learned, kind):
    tokenizer = learn(["a red apple on a table"] * 2, 620, kind)
    short, long = "a red apple", "a red apple on a table " * 9
    ids, mask = tokenizer.pack([short, long, ""], 16)
    assert (ids.dtype, ids.shape, mask.dtype, mask.shape) == (np.int64, (3, 16), bool, (3, 16))
    assert tokenizer.truncated == 1
    body = tokenizer.encode(short)
    around = len(tokenizer.start) + len(tokenizer.end)
    assert list(ids[0][mask[0]]) == [*tokenizer.start, *body, *tokenizer.end]
    assert tokenizer.decode(ids[0][mask[0]]) == short
    assert mask.sum(1).tolist() == [len(body) + around, 16, around]
    assert set(ids[0][~mask[0]].tolist()) == {tokenizer.pad}
    assert not (np.diff(mask.astype(int)) > 0).any()
    with pytest.raises(TextError, match="'a red apple on a table a red apple on") as error:
        tokenizer.pack([short, long], 16, truncate=False)
    assert "\n" not in str(error.value)
    tokenizer.pack([long, long], 16)
    assert tokenizer.truncated == 3


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_spells_differently_and_says_the_same(learned, captions, kind):
    tokenizer = learned[kind]
    plain, _ = tokenizer.pack(captions, 128)
    dropped, mask = tokenizer.pack(captions, 128, dropout=0.5, random=random.Random(0))
    assert (plain != dropped).any(1).all()
    for row, real, caption in zip(dropped, mask, captions):
        assert tokenizer.decode(row[real]) == tokenizer.decode(tokenizer.encode(caption))
    again, _ = tokenizer.pack(captions, 128, dropout=0.5, random=random.Random(0))
    assert np.array_equal(again, dropped)
    assert np.array_equal(tokenizer.pack(captions, 128)[0], plain)


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_can_be_packed(learned, kind):
    texts = [
        "",
        " \n\t",
        "\0",
        "\ud800",
        "\ud83e\udd51 🥑👩\u200d👧",
        "word " * 10_000,
        "x" * 50_000,
        "日本語 العربية",
        "\ufeff",
    ]
    tokenizer = from_state(learned[kind].state())
    ids, mask = tokenizer.pack(texts, 77)
    assert ids.min() >= 0
    assert ids.max() < tokenizer.vocab_size
    assert mask.sum(1).max() == 77
    assert tokenizer.truncated == 2
    assert "🥑" in tokenizer.decode(ids[4][mask[4]])


def test_too_short_context_is_refused(learned):
    with pytest.raises(TextError, match="context length of 1 "):
        learned["clip"].pack(["a"], 1)


def test_a_tokenizer_goes_to_a_worker_process(learned, captions):
    tokenizer = pickle.loads(pickle.dumps(learned["clip"]))
    assert tokenizer.encode(captions[0]) == learned["clip"].encode(captions[0])


@pytest.mark.parametrize("merges", ["a b", {"a": "b"}, [1], [None], [["a", "b"]], ["a"], ["a b", "a b"], 5])
def test_malformed_states_are_one_line_errors(merges):
    with pytest.raises(TextError) as error:
        from_state({"type": "clip", "merges": merges})
    assert "\n" not in str(error.value)


def test_a_recipe_must_name_a_vocabulary():
    with pytest.raises(TextError, match=r"tokenizer\.path"):
        tokenizers.build({"type": "clip"})
