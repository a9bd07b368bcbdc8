import numpy as np


def test_a_row_is_the_text_alone(learned):
    tokenizer = learned["dalle"]
    body = tokenizer.encode("A Red Apple")
    ids, mask = tokenizer.pack(["A Red Apple"], 10)
    assert ids[0].tolist() == body + [0] * (10 - len(body))
    assert mask[0].tolist() == [True] * len(body) + [False] * (10 - len(body))
    assert np.array_equal(tokenizer.pack(["a red apple"], 10)[0], ids)


def test_all_entries_but_the_bytes_are_merges(learned):
    tokenizer = learned["dalle"]
    assert tokenizer.vocab_size == 512 + len(tokenizer.merges) == 572


def test_there_are_no_special_tokens_to_smuggle_in(learned):
    tokenizer = learned["dalle"]
    assert len(tokenizer.encode("<|endoftext|>")) > 1
    assert tokenizer.decode(tokenizer.encode("<|endoftext|>")) == "<|endoftext|>"
